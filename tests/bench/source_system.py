"""The rules of the system that runmesh replaces, in its language and in a few own lines, to be measured beside ours.

    source_system.py elections PEERS      elections a second
    source_system.py agreement PEERS      tasks of 1,000 on whose owner all peers agree
    source_system.py lost PEERS TASKS     tasks that nobody runs
    source_system.py tags FOLDER          workflow files a second through the tag patterns
"""

import hashlib
import pathlib
import random
import re
import sys
import time

SECONDS = 0.3


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def owner(head, task, peers):
    """The peer whose hash differs in the fewest bits from the hash of clock head and task, all hashed each time."""
    seed = int(sha(head + sha(task)), 16)
    return min(peers, key=lambda peer: (bin(int(sha(peer), 16) ^ seed).count("1"), peer))


def rate(batch):
    """Of one core: what other processes take of it meanwhile is not counted."""
    began, done = time.process_time(), 0
    while time.process_time() - began < SECONDS:
        done += batch()
    return done / (time.process_time() - began)


def elections(count):
    peers = [f"peer-{n}" for n in range(count)]

    def batch():
        for n in range(10):
            owner("head", f"task-{n}", peers)
        return 10

    return rate(batch)


def agreement(count):
    """Each peer elects from its own clock head: the peers never speak to each other."""
    peers = [f"peer-{n}" for n in range(count)]
    agreed = 0
    for n in range(1000):
        agreed += len({owner(sha(f"{peer} {n}"), f"task-{n}", peers) for peer in peers}) == 1
    return agreed


def lost(count, tasks):
    """The peer that finds a task elects an owner and drops the task unless it is that owner itself."""
    peers, chance = [f"peer-{n}" for n in range(count)], random.Random(1)
    dropped = 0
    for n in range(tasks):
        finder = chance.choice(peers)
        dropped += owner(sha(f"{finder} {n}"), f"task-{n}", peers) != finder
    return dropped


PATTERNS = [
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        r"WORKFLOW_TAGS:\s*[\"']?([^\"'\n]+)[\"']?",
        r"P2P_TAGS:\s*[\"']?([^\"'\n]+)[\"']?",
        r"#\s*P2P:\s*(.+)$",
        r"#\s*Tags:\s*(.+)$",
    )
]
KNOWN = {"p2p-only", "p2p-eligible", "github-api", "unit-test", "code-generation", "web-scraping", "data-processing"}


def tags_of(text):
    found = set()
    for pattern in PATTERNS:
        for match in pattern.findall(text):
            found.update(word.strip().lower() for word in re.split(r"[,\s]+", match))
    return found & KNOWN


def tags(folder):
    texts = [path.read_text() for path in sorted(pathlib.Path(folder).iterdir())]

    def batch():
        for text in texts:
            tags_of(text)
        return len(texts)

    return rate(batch)


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "tags":
        print(tags(*words))
    else:
        print({"elections": elections, "agreement": agreement, "lost": lost}[what](*map(int, words)))
