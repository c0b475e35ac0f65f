"""`python -m demo.model --port 0 --script FILE.json`: serve a script, print the server's URL, run until ended."""

from demo.model.program import main

main()
