"""Pictures: messages and arrays -> frames -> NV12."""
