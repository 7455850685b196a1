"""Image layouts in files and folders, and the images of a running daemon: what `export` and `import` move."""
