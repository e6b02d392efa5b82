//! How much the tests beside the code do.

use proptest::prelude::ProptestConfig;

/// How many times fewer steps a test takes under Miri, which needs a thousand times as long for each.
const MIRI_SHARE: u32 = 64;

/// So many steps, and a few of them under Miri.
pub(crate) fn steps(all: u32) -> u32 {
    if cfg!(miri) { all.div_ceil(MIRI_SHARE) } else { all }
}

/// So many random cases, and a few of them under Miri, which keeps no file of those that failed.
pub(crate) fn cases(all: u32) -> ProptestConfig {
    let usual = ProptestConfig::with_cases(steps(all));
    if cfg!(miri) { ProptestConfig { failure_persistence: None, ..usual } } else { usual }
}
