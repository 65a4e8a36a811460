def register_environments() -> None:
    pass
