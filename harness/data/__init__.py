"""MVTec AD on this machine: fetch its archives, extract them safely, compare what is there with what is published."""
