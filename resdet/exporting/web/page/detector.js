// The exported detector in JavaScript, by onnxruntime-web alone. It has no other part of the page:
//   const session = await load("model.onnx");
//   const objects = await detect(session, context.getImageData(0, 0, width, height));
import * as ort from "./ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1; // more need a server that isolates the page (COOP and COEP)

/** The session of a model, which is an address or the bytes of the file. */
export const load = (model) => ort.InferenceSession.create(model, { executionProviders: ["wasm"] });

/** The objects in the pixels of an ImageData, best first: label, score, box (x1, y1, x2, y2 in its pixels), and the
 * mask as rows of probabilities over the box, null for a detector without masks. */
export async function detect(session, { data, width, height }) {
  const rgb = new Uint8Array(3 * width * height);
  for (let pixel = 0; pixel < width * height; pixel++)
    for (let channel = 0; channel < 3; channel++) rgb[3 * pixel + channel] = data[4 * pixel + channel];
  const { boxes, scores, labels, valid, masks } = await session.run({ images: new ort.Tensor("uint8", rgb, [1, height, width, 3]) });
  const cells = masks ? masks.dims[2] * masks.dims[3] : 0;
  return Array.from(scores.data.keys()).filter((i) => valid.data[i]).map((i) => ({
    label: Number(labels.data[i]), score: scores.data[i], box: Array.from(boxes.data.slice(4 * i, 4 * i + 4)),
    mask: masks ? masks.data.slice(cells * i, cells * (i + 1)) : null,
  }));
}
