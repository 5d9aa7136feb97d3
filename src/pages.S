// The documents of pages.h, from the folder of -I that web/page.cmake fills.
    .section .rodata
    .macro document name, file
    .global \name
    .global \name\()_end
\name:
    .incbin "\file"
\name\()_end:
    .endm

    document explorer_html, explorer.html
    document explorer_csp, explorer.csp
    document docs_html, docs.html
    document docs_csp, docs.csp

    .section .note.GNU-stack, "", %progbits
