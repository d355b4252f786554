"""Serve predictions to Label Studio, and functions to CVAT."""

from tipsseg.say import NOTES

NOTES |= {
    "serve.serving": "Serving {model} on http://{name}:{server_port}",
    "serve.stopped": "Stopped.",
}
