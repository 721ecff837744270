// A row of `stats`, as row_stats leaves it; the host's copy of these names is the module `stat` of src/lib.rs.
const STATS_WIDTH: u32 = 8u;
const STAT_MAX: u32 = 0u;
const STAT_SUM: u32 = 1u;
const STAT_SUM_SHIFTED: u32 = 2u;
const STAT_SUM_SQUARED: u32 = 3u;
const STAT_LABEL_LOGIT: u32 = 4u;
const STAT_NONFINITE: u32 = 5u;
const STAT_COUNT: u32 = 6u;
const STAT_ENTROPY_TOP_K: u32 = 7u;
// The label of a row that has none.
const NO_LABEL: u32 = 0xffffffffu;

