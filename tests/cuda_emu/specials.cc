// See specials.h.

#include "specials.h"

namespace emu {

namespace {

template <u32 AXIS> u32 thread_at(const Block &block, u32 thread) {
    u32 index[3];
    block.thread_index(thread, index);
    return index[AXIS];
}
template <u32 AXIS> u32 block_size(const Block &block, u32) {
    return block.launch->block[AXIS];
}
template <u32 AXIS> u32 block_at(const Block &block, u32) {
    return block.index[AXIS];
}
template <u32 AXIS> u32 grid_size(const Block &block, u32) {
    return block.launch->grid[AXIS];
}

const Special SPECIALS[] = {
    {"%tid.x", thread_at<0>},
    {"%tid.y", thread_at<1>},
    {"%tid.z", thread_at<2>},
    {"%ntid.x", block_size<0>},
    {"%ntid.y", block_size<1>},
    {"%ntid.z", block_size<2>},
    {"%ctaid.x", block_at<0>},
    {"%ctaid.y", block_at<1>},
    {"%ctaid.z", block_at<2>},
    {"%nctaid.x", grid_size<0>},
    {"%nctaid.y", grid_size<1>},
    {"%nctaid.z", grid_size<2>},
    {"%laneid", [](const Block &, u32 thread) { return thread % LANES; }},
    {"%warpid", [](const Block &, u32 thread) { return thread / LANES; }},
    {"%nwarpid", [](const Block &, u32) { return WARPS_MAX; }},
    {"%lanemask_eq", [](const Block &, u32 thread) { return 1U << thread % LANES; }},
    {"%lanemask_lt", [](const Block &, u32 thread) { return (1U << thread % LANES) - 1; }},
    {"%lanemask_le", [](const Block &, u32 thread) { return (2U << thread % LANES) - 1; }},
    {"%lanemask_ge", [](const Block &, u32 thread) { return ~((1U << thread % LANES) - 1); }},
    {"%lanemask_gt", [](const Block &, u32 thread) { return ~((2U << thread % LANES) - 1); }},
    {"%dynamic_smem_size", [](const Block &block, u32) { return block.launch->dynamic_shared_bytes; }},
    {"%total_smem_size",
     [](const Block &block, u32) { return block.launch->dynamic_shared_bytes + block.kernel->shared_declared_bytes; }},
};

} // namespace

const Special *find_special(const std::string &name) {
    for (const Special &special : SPECIALS)
        if (name == special.name) return &special;
    return nullptr;
}

} // namespace emu
