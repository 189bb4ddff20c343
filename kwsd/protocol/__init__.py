"""The protocol: what travels between the daemon and its subscribers.

Law: standard library only, beside kwsd.errors, kwsd.plain and kwsd.typed, which obey the same law. Every
subscriber's program imports this room, so it must stay small. A test checks this.

    address       where a daemon serves
    events        what the daemon sends: one JSON object a line
    subscription  what a subscriber may send
    text          events as lines for people
"""
