"""Bytes and rows: content on disk, rows in SQLite, expendable entries in diskcache."""
