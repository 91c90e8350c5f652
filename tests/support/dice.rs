//! Chance that a seed decides.

/// From LAKEBED_SEED, or another one each time; printed when a test fails.
pub fn seed() -> u64 {
    let given = std::env::var("LAKEBED_SEED").ok().map(|text| text.parse().expect("LAKEBED_SEED is a number"));
    let seed = given.unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    eprintln!("LAKEBED_SEED={seed}");
    seed
}

/// SplitMix64: the same seed makes the same run on every version of every library.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `limit - 1`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit.max(1)
    }

    /// True `part` times of a hundred.
    pub fn percent(&mut self, part: u64) -> bool {
        self.below(100) < part
    }

    /// A place in a list of so many.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }
}
