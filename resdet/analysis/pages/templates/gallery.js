
"use strict";
(() => {
  // The slider hides the predictions below its score; the choice beside it moves the ground truth.
  const gallery = document.getElementById("gallery-pictures");
  if (!gallery) return;
  const slider = gallery.querySelector("#score"), truth = gallery.querySelector("#truth");
  const output = gallery.querySelector("output"), shown = gallery.querySelector(".shown");
  const marks = [...gallery.querySelectorAll(".found")].map((mark) => [mark, Number(mark.dataset.score)]);
  const all = gallery.querySelectorAll(".mark.found").length;
  const update = () => {
    const score = Number(slider.value);
    let count = 0;
    for (const [mark, its] of marks) {
      mark.classList.toggle("below", its < score);
      count += its >= score && mark.classList.contains("mark");
    }
    output.textContent = score.toFixed(2);
    shown.textContent = `${count} of ${all} boxes shown`;
    for (const place of ["beside", "over", "hidden"]) gallery.classList.toggle(`truth-${place}`, truth.value === place);
  };
  slider.addEventListener("input", update);
  truth.addEventListener("change", update);
  update();
})();
