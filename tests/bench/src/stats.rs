//! What a list of measured values says.

/// Measured values of one kind.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        let at = self.0.partition_point(|known| *known < value);
        self.0.insert(at, value);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The middle value; with an even number the mean of the two in the middle. None without values.
    pub fn median(&self) -> Option<f64> {
        let upper = *self.0.get(self.len() / 2)?;
        if self.len() % 2 == 1 {
            return Some(upper);
        }
        let lower = self.0[self.len() / 2 - 1];
        Some(f64::midpoint(lower, upper))
    }

    /// The smallest value that 99 % of the values do not exceed (nearest rank): with less than 100
    /// values the largest.
    pub fn p99(&self) -> Option<f64> {
        let rank = (self.len() * 99).div_ceil(100);
        self.0.get(rank.checked_sub(1)?).copied()
    }

    /// The values, ascending.
    pub fn values(&self) -> &[f64] {
        &self.0
    }
}

/// Whether less or more of something is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Less, as of time.
    Less,
    /// More, as of work done.
    More,
}

impl Better {
    /// How many times better `value` is than `baseline`; less than 1 where it is worse. None where
    /// it has no meaning, because nothing was spent or done.
    pub fn ratio(self, baseline: f64, value: f64) -> Option<f64> {
        let (over, under) = match self {
            Self::Less => (baseline, value),
            Self::More => (value, baseline),
        };
        (over > 0.0 && under > 0.0).then(|| over / under)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: impl IntoIterator<Item = u32>) -> Samples {
        let mut all = Samples::default();
        for value in values {
            all.add(f64::from(value));
        }
        all
    }

    #[test]
    fn the_median_is_in_the_middle_of_unsorted_values() {
        assert_eq!(samples([]).median(), None);
        assert_eq!(samples([7]).median(), Some(7.0));
        assert_eq!(samples([9, 1, 5]).median(), Some(5.0));
        assert_eq!(samples([9, 1, 5, 6]).median(), Some(5.5));
    }

    #[test]
    fn p99_is_a_measured_value_that_one_in_a_hundred_may_exceed() {
        assert_eq!(samples([]).p99(), None);
        assert_eq!(samples([3, 8]).p99(), Some(8.0));
        assert_eq!(samples(1..=99).p99(), Some(99.0));
        assert_eq!(samples((1..=100).rev()).p99(), Some(99.0));
        assert_eq!(samples(1..=1000).p99(), Some(990.0));
    }

    #[test]
    fn ratios_say_how_many_times_better() {
        assert_eq!(Better::Less.ratio(80.0, 10.0), Some(8.0));
        assert_eq!(Better::More.ratio(400.0, 4000.0), Some(10.0));
        assert_eq!(Better::Less.ratio(10.0, 20.0), Some(0.5));
        assert_eq!(Better::Less.ratio(10.0, 0.0), None);
    }
}
