// enc_reply.c: see enc_reply.h.
#include "enc_reply.h"

enc_reply enc_reply_start(const enc_source *source) {
    enc_reply e = {.format = source->request->format};
    if (e.format == FORMAT_SAFETENSORS) {
        e.safetensors = enc_safetensors_start(source);
    } else {
        e.json = enc_json_start(source);
    }
    return e;
}

enc_step enc_reply_next(enc_reply *e, buffer *out) {
    return e->format == FORMAT_SAFETENSORS ? enc_safetensors_next(&e->safetensors, out) : enc_json_next(&e->json, out);
}

const logitd_error *enc_reply_error(const enc_reply *e) {
    return e->format == FORMAT_SAFETENSORS ? &e->safetensors.error : &e->json.error;
}

uint64_t enc_reply_bytes(const enc_source *source, bool *exact) {
    *exact = source->request->format == FORMAT_SAFETENSORS;
    return *exact ? enc_safetensors_bytes(source) : enc_json_most_bytes(source);
}
