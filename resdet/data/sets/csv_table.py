from pathlib import Path
LOOKS_FOR=""
def recognizes(place: Path) -> bool: return False
def splits(place: Path): return ()
def read(place: Path, split: str): raise NotImplementedError
def annotation_file(p, i): raise NotImplementedError
