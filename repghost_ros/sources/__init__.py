"""Where recorded frames come from: picture files, videos, bags."""
