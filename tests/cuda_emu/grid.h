// Runs the blocks of a launch on the host's threads, and says what a kernel did wrong.
#pragma once

#include <optional>

#include "loader.h"

namespace emu {

struct Finding {
    FaultKind kind;
    std::string text; // "out of bounds: kernel k, PTX line 12 (a.cu:7), block (0, 0, 0), thread (31, 0, 0): reads …"
};

class Grid {
  public:
    explicit Grid(u32 n_threads);
    ~Grid();
    Grid(const Grid &) = delete;
    Grid &operator=(const Grid &) = delete;

    // Blocks run in an order made from the seed, each on one thread. Adds to what was counted for the kernel. After a
    // finding, blocks that were not begun are not run.
    std::optional<Finding> run(const Launch &launch, LoadedKernel &loaded);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

} // namespace emu
