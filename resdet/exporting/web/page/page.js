// The page: reads a picture, asks the worker, and shows what it found. Names and numbers become text, never markup.
import { color, painted, places } from "./drawing.js";

const MOST_PIXELS = 16e6; // a larger picture is reduced first: its float copy would fill the memory of a phone
const [LONGEST_NAME, LONGEST_ON_PHONE] = [32, 16]; // characters on a label
const MOST_LISTED = 300;
const [TAG, MARGIN] = [20, 24]; // CSS pixels: the height of a label, and of the room for labels around the picture
const SVG = "http://www.w3.org/2000/svg";

const at = (id) => document.getElementById(id);
const chooser = document.querySelector("#drop input");
const state = { names: [], model: null, worker: null, ready: false, busy: false, waiting: null, image: null, found: [], off: new Set() };

/** What was found in the last picture, for whoever uses this page as a module. */
export const found = () => state.found;

function say(text, problem = false) {
  at("status").textContent = text;
  at("status").className = problem ? "problem" : "";
}

async function file(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: the server answered ${answer.status}`);
  return answer;
}

/** The bytes of the model; says how much of it has come. */
async function fetched(name) {
  const answer = await file(name);
  const whole = Number(answer.headers.get("Content-Length")), parts = [];
  let length = 0;
  at("progress").hidden = !whole;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    length += value.length;
    at("progress").value = whole ? Math.min(1, length / whole) : 0;
    say(`loading the detector: ${(length / 1e6).toFixed(0)} MB`);
  }
  at("progress").hidden = true;
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

function begin() {
  say("starting the detector");
  state.worker = new Worker("worker.js", { type: "module" });
  state.worker.onmessage = ({ data }) => answered(data);
  state.worker.onerror = (event) => answered({ problem: event.message || "the detector's thread could not start" });
  state.worker.postMessage({ model: state.model });
}

/** The answer of the worker. After a problem it is started anew, for its memory may be used up. */
function answered({ ready, found, seconds, problem }) {
  state.busy = false;
  if (problem) {
    state.worker.terminate();
    const started = state.ready;
    state.ready = false;
    if (started) begin();
    say(`the detector stopped: ${problem}`, true);
  } else if (ready) {
    state.ready = true;
    say("ready");
  } else {
    state.found = found;
    state.off.clear();
    say(`${state.image.width} x ${state.image.height} pixels${state.image.note}, ${seconds.toFixed(2)} s`);
    at("result").hidden = false;
    show();
    dispatchEvent(new Event("detected"));
  }
  ask();
}

/** Sends the newest picture, if the worker is free. */
function ask() {
  if (!state.ready || state.busy || !state.waiting) return;
  state.image = state.waiting;
  state.waiting = null;
  state.busy = true;
  const canvas = at("pixels"), { width, height, bitmap } = state.image;
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; // behind transparent pixels, as in resdet
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  state.found = [];
  at("result").hidden = true;
  say("looking");
  const image = context.getImageData(0, 0, width, height);
  state.worker.postMessage({ image: { data: image.data, width, height } }, [image.data.buffer]);
}

/** Decodes a picture as resdet does: turned upright, without conversion of colours. */
async function choose(picture) {
  if (!picture) return;
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "default" };
  try {
    let bitmap = await createImageBitmap(picture, options), note = "";
    const pixels = bitmap.width * bitmap.height;
    if (pixels > MOST_PIXELS) {
      const scale = Math.sqrt(MOST_PIXELS / pixels);
      note = ` (reduced from ${bitmap.width} x ${bitmap.height})`;
      const [resizeWidth, resizeHeight] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.floor(side * scale)));
      bitmap = await createImageBitmap(bitmap, { resizeWidth, resizeHeight, resizeQuality: "high" });
    }
    state.waiting?.bitmap.close();
    state.waiting = { bitmap, width: bitmap.width, height: bitmap.height, note };
  } catch {
    say(`${picture.name}: is no picture that this browser can read, or too large for it`, true);
    return;
  }
  ask();
}

const nameOf = (label) => (state.names[label] ?? `class ${label}`).replace(/[\s\p{Cc}]+/gu, " ");
const cut = (name, longest = LONGEST_NAME) => (name.length > longest ? `${name.slice(0, longest - 1)}…` : name);

function element(parent, tag, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  parent.append(made);
  return made;
}

/** Everything that depends on the slider and the switches. */
function show() {
  const score = Number(at("score").value);
  document.querySelector("output").textContent = score.toFixed(2);
  const enough = state.found.filter((one) => one.score >= score);
  classes(enough);
  const shown = enough.filter((one) => !state.off.has(one.label));
  draw(shown);
  at("listed").textContent = `${shown.length} of ${state.found.length} objects`;
  at("objects").replaceChildren(...shown.slice(0, MOST_LISTED).map((one) => {
    const row = document.createElement("tr");
    for (const text of [nameOf(one.label), one.score.toFixed(3), one.box.map((side) => side.toFixed(1)).join(", ")])
      row.append(Object.assign(document.createElement("td"), { textContent: text, dir: "auto" }));
    return row;
  }));
}

/** A button for each class that was found, which hides and shows its objects. */
function classes(objects) {
  const counts = new Map();
  for (const { label } of objects) counts.set(label, (counts.get(label) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  at("classes").replaceChildren(...sorted.map(([label, count]) => {
    const item = document.createElement("li"), button = document.createElement("button"), swatch = document.createElement("span");
    Object.assign(swatch, { className: "swatch" }).style.background = color(label);
    const name = Object.assign(document.createElement("bdi"), { textContent: nameOf(label), title: nameOf(label) });
    Object.assign(button, { type: "button", ariaPressed: String(!state.off.has(label)) });
    button.append(swatch, name, ` ${count}`);
    button.onclick = () => {
      if (!state.off.delete(label)) state.off.add(label);
      show();
    };
    item.append(button);
    return item;
  }));
}

/** Masks, boxes and labels over the picture, in CSS pixels. */
function draw(objects) {
  const stage = at("stage"), svg = at("marks"), { width, height } = state.image;
  const room = Math.min(stage.parentElement.clientWidth, Math.max(width, 640), (0.86 * innerHeight * width) / height);
  const scale = room / width;
  [stage.style.width, stage.style.height] = [`${room}px`, `${height * scale}px`];
  const boxes = objects.map((one) => one.box.map((side) => side * scale));
  cells(objects, boxes, room, height * scale);
  svg.replaceChildren();
  svg.setAttribute("aria-label", `${objects.length} objects`);
  const longest = innerWidth < 600 ? LONGEST_ON_PHONE : LONGEST_NAME;
  const tags = objects.map((one) => `\u2068${cut(nameOf(one.label), longest)}\u2069 ${one.score.toFixed(2)}`); // in its own direction of writing
  for (let i = objects.length - 1; i >= 0; i--) { // the best ones are drawn on top
    const [x1, y1, x2, y2] = boxes[i], place = { x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1) };
    const group = element(svg, "g");
    element(group, "title", {}, `${nameOf(objects[i].label)} ${objects[i].score.toFixed(2)}`);
    element(group, "rect", { ...place, class: "halo" });
    element(group, "rect", { ...place, stroke: color(objects[i].label) });
  }
  at("hidden").textContent = at("labels").checked ? labelled(objects, boxes, tags, room, height * scale) : "";
}

/** Draws the labels; says how many have no room. */
function labelled(objects, boxes, tags, width, height) {
  const svg = at("marks"), measured = element(svg, "text");
  const sizes = tags.map((tag) => {
    measured.textContent = tag;
    return [Math.min(measured.getComputedTextLength() + 10, width), TAG];
  });
  measured.remove();
  let without = 0;
  places(boxes, sizes, [0, -MARGIN, width, height + MARGIN]).forEach((spot, i) => {
    without += !spot;
    if (!spot) return;
    const group = element(svg, "g", { class: "tag" });
    const [x, y] = spot;
    element(group, "rect", { x, y, width: spot[2] - x, height: TAG, rx: 3 }).style.fill = color(objects[i].label);
    element(group, "text", { x: x + 5, y: y + 14.5 }, tags[i]);
  });
  return without ? `${without} labels have no room; point at a box to read its own.` : "";
}

/** The masks, best on top. */
function cells(objects, boxes, width, height) {
  const canvas = at("cells"), masked = at("masks").checked;
  [canvas.width, canvas.height] = [Math.max(1, Math.round(width)), Math.max(1, Math.round(height))];
  const context = canvas.getContext("2d");
  for (let i = objects.length - 1; i >= 0 && masked; i--) {
    const one = objects[i], [x1, y1, x2, y2] = boxes[i];
    if (!one.mask) continue;
    if (one.paintedFor !== width) [one.painted, one.paintedFor] = [painted(one.mask, x2 - x1, y2 - y1, color(one.label)), width];
    context.drawImage(one.painted, x1, y1);
  }
}

function listen() {
  chooser.onchange = () => choose(chooser.files[0]);
  if (chooser.files.length) choose(chooser.files[0]);  // chosen before this script ran, or kept by a reload
  for (const kind of ["dragover", "dragleave", "drop"])
    addEventListener(kind, (event) => {
      event.preventDefault();
      at("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop") choose(event.dataTransfer.files[0]);
    });
  addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
  for (const id of ["score", "labels", "masks"]) at(id).oninput = show;
  addEventListener("resize", () => state.found.length && show());
}

async function main() {
  listen();
  try {
    const contract = await (await file("contract.json")).json();
    state.names = contract.class_names;
    const some = state.names.slice(0, 12).map((_, label) => cut(nameOf(label))).join(", ");
    at("what").textContent = `${state.names.length} ${state.names.length === 1 ? "class" : "classes"}: ${some}${state.names.length > 12 ? " and more" : ""}`;
    at("with-masks").hidden = !contract.outputs.some((port) => port.name === "masks");
    state.model = await fetched(contract.file);
    begin();
  } catch (error) {
    say(`the detector could not be loaded: ${error.message}`, true);
  }
}

await main();
