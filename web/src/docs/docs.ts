// docs.ts: the script of the page at /docs: the theme, and this server's address in the command lines.
import '../theme'
import './docs.css'

for (const block of document.querySelectorAll('pre'))
  block.textContent = (block.textContent ?? '').replaceAll('http://127.0.0.1:8080', location.origin)
