"""Drills: kill, freeze and starve everything under load, then audit every accepted question."""
