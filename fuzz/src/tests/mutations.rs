//! Mutates seeds, so that the inputs are almost valid.

pub(super) struct Mutations<'a> {
    seeds: &'a [Vec<u8>],
    state: u64,
}

impl<'a> Mutations<'a> {
    pub(super) fn of(seeds: &'a [Vec<u8>], seed: u64) -> Self {
        Self { seeds, state: seed }
    }

    /// `SplitMix64`.
    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next_u64() % bound as u64).expect("smaller than the bound")
    }

    /// Returns a part of a random seed.
    fn part(&mut self) -> Vec<u8> {
        let seed = &self.seeds[self.below(self.seeds.len())];
        let start = self.below(seed.len() + 1);
        let len = self.below(16).min(seed.len() - start);
        seed[start..start + len].to_vec()
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        const TELLING: [u8; 20] = *b"\0\x01\x7f\x80\xff\n \t\"\\,;[]{}():0";
        let at = self.below(input.len() + 1);
        let len = self.below(8).min(input.len() - at);
        match self.below(7) {
            0 => drop(input.drain(at..at + len)),
            1 => input.truncate(at),
            2 => drop(input.splice(at..at + len, self.part())),
            3 => drop(input.splice(at..at, self.part())),
            4 => input.insert(at, TELLING[self.below(TELLING.len())]),
            5 if at < input.len() => input[at] ^= 1 << self.below(8),
            5 => input.push(0),
            _ => {
                let repeated = input[at..at + len].repeat(1 + self.below(40));
                drop(input.splice(at..at, repeated));
            }
        }
    }
}

impl Iterator for Mutations<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut input = self.seeds[self.below(self.seeds.len())].clone();
        for _ in 0..=self.below(4) {
            self.mutate(&mut input);
        }
        Some(input)
    }
}
