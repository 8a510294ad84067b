// The detector in a thread of its own, so that the page answers while it works. One message is one question.
import { detect, load } from "./detector.js";

let session = null;

onmessage = async ({ data: { model, image } }) => {
  try {
    if (model) {
      session = await load(model);
      postMessage({ ready: true });
    } else {
      const start = performance.now();
      const found = await detect(session, image);
      postMessage({ found, seconds: (performance.now() - start) / 1000 });
    }
  } catch (error) {
    postMessage({ problem: String(error?.message ?? error) });
  }
};
