"""How the store is laid out, and how an older one becomes today's."""

MIGRATIONS = (
    (
        """CREATE TABLE examples (
            id INTEGER PRIMARY KEY,
            kind TEXT NOT NULL CHECK (kind IN ('text', 'chat')),
            body TEXT NOT NULL,
            sha256 TEXT NOT NULL UNIQUE,
            source TEXT NOT NULL,
            created REAL NOT NULL
        ) STRICT""",
        """CREATE TABLE jobs (
            id INTEGER PRIMARY KEY,
            state TEXT NOT NULL CHECK (state IN ('running', 'stopped', 'done', 'failed')),
            recipe TEXT NOT NULL,
            created REAL NOT NULL,
            updated REAL NOT NULL,
            progress TEXT NOT NULL
        ) STRICT""",
        """CREATE TABLE egress (
            time INTEGER NOT NULL,
            host TEXT NOT NULL,
            kind TEXT NOT NULL,
            up INTEGER NOT NULL,
            down INTEGER NOT NULL,
            exchanges INTEGER NOT NULL,
            PRIMARY KEY (time, host, kind)
        ) STRICT, WITHOUT ROWID""",
    ),
    (
        # A column's CHECK cannot be changed in place.
        """CREATE TABLE queued_jobs (
            id INTEGER PRIMARY KEY,
            state TEXT NOT NULL CHECK (state IN
                ('queued', 'running', 'paused', 'stopped', 'done', 'failed', 'cancelled')),
            recipe TEXT NOT NULL,
            created REAL NOT NULL,
            updated REAL NOT NULL,
            progress TEXT NOT NULL,
            options TEXT,
            problem TEXT
        ) STRICT""",
        """INSERT INTO queued_jobs (id, state, recipe, created, updated, progress)
            SELECT id, state, recipe, created, updated, progress FROM jobs""",
        "DROP TABLE jobs",
        "ALTER TABLE queued_jobs RENAME TO jobs",
        """CREATE TABLE feedback (
            id INTEGER PRIMARY KEY,
            created REAL NOT NULL,
            model TEXT NOT NULL,
            messages TEXT NOT NULL,
            answer TEXT NOT NULL,
            rating TEXT CHECK (rating IN ('up', 'down')),
            correction TEXT
        ) STRICT""",
    ),
    (
        # A column of a primary key cannot be added in place.
        """CREATE TABLE egress_by_purpose (
            time INTEGER NOT NULL,
            host TEXT NOT NULL,
            kind TEXT NOT NULL,
            purpose TEXT NOT NULL,
            up INTEGER NOT NULL,
            down INTEGER NOT NULL,
            tokens INTEGER NOT NULL,
            exchanges INTEGER NOT NULL,
            PRIMARY KEY (time, host, kind, purpose)
        ) STRICT, WITHOUT ROWID""",
        """INSERT INTO egress_by_purpose SELECT time, host, kind, 'unknown', up, down, 0, exchanges
            FROM egress""",
        "DROP TABLE egress",
        "ALTER TABLE egress_by_purpose RENAME TO egress",
    ),
)
"""Statements that bring a store from version i to i + 1. Released ones never change; a change is a new row."""
