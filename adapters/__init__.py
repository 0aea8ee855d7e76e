"""The compiler: a recipe and a backbone's facts become a kit of plain ONNX graphs. Knows no network and no private text."""
