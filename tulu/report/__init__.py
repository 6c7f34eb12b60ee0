"""The report of a run: what it wrote, as one HTML file that opens anywhere, or as a page that follows it while it goes on."""
