"""PDF: its text page by page, with headings and tables, and with OCR where a page is a picture."""
