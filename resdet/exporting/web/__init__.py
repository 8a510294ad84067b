"""A static page that runs an exported detector in the browser, by onnxruntime-web."""
