"""Read images behind URLs, and label on a Ray cluster."""

from tipsseg.say import NOTES

NOTES |= {
    "cloud.ray_tasks": "Ray runs {tasks} at a time, for {shards}.",
}
