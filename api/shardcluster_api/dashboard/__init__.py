"""The dashboard: a page of static files, and the few operations that only it needs.

What a browser does with them is in the folder `static`: plain HTML, CSS and ES modules, no build.
"""
