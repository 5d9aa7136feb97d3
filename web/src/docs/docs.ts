// docs.ts: the page at /docs: its style alone yet.
import '../base.css'
