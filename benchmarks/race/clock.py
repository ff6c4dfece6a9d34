"""When this process began. Imported before anything heavy, so that the time of those imports counts."""

import time

START_SECONDS = time.time()
