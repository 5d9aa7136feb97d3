#include "settings.h"

#include <cstdlib>

namespace emu {

Settings settings_from_environment() {
    Settings settings;
    struct Number {
        const char *name;
        u64 *value;
    };
    const Number numbers[] = {
        {"LOGITD_EMU_SEED", &settings.seed},           {"LOGITD_EMU_THREADS", &settings.threads},
        {"LOGITD_EMU_MEMORY_MB", &settings.memory_mb}, {"LOGITD_EMU_CAPABILITY", &settings.capability},
        {"LOGITD_EMU_DEVICES", &settings.devices},     {"LOGITD_EMU_DRIVER_VERSION", &settings.driver_version},
        {"LOGITD_EMU_STEPS", &settings.steps_max},     {"LOGITD_EMU_FAIL_LAUNCH", &settings.fail_launch},
        {"LOGITD_EMU_TRAFFIC", &settings.traffic},
    };
    for (const Number &number : numbers) {
        const char *text = getenv(number.name);
        if (!text) continue;
        char *end = nullptr;
        *number.value = strtoull(text, &end, 10);
        if (end == text || *end)
            throw std::runtime_error(std::string(number.name) + " is \"" + text + "\": it must be a whole number");
    }
    if (const char *text = getenv("LOGITD_EMU_REPORT")) settings.report = text;
    if (const char *text = getenv("LOGITD_EMU_COUNTERS")) settings.counters = text;
    return settings;
}

} // namespace emu
