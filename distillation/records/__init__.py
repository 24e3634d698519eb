"""Where records come from: files of the user's (`reading.py`) and an API's pushes (`folder.py`)."""
