// The document of GET /openapi.json, src/openapi.json, as bytes of the program (openapi.h).
    .section .rodata
    .global openapi_json
    .global openapi_json_end
openapi_json:
    .incbin OPENAPI_JSON
openapi_json_end:
    .section .note.GNU-stack, "", %progbits
