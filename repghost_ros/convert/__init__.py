"""Models made from models: export, folding, quantization, the vendor's compiler."""
