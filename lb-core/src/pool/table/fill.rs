//! The filling of a table: shape, quotas, turns.

use super::{
    MAX_SLOTS, MIN_SLOTS, ROUNDS_PER_TURN, SLOTS_OF_THE_LEAST, SLOTS_PER_SERVER, Share, UNITS_PER_SERVER,
    reduce,
};
use crate::pool::identity::mix;

/// A slot that nobody has taken yet; places of members end below it.
const FREE: u16 = u16::MAX;

/// Size of a table and of what is claimed at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    /// Size of the table, a power of two.
    pub(super) slots: u32,
    /// Size of the permutations: the least power of two that holds all units.
    points: u32,
    /// Units; more than half of `points`.
    units: u32,
}

impl Shape {
    /// Shape for these effective weights; `None` without any.
    pub(super) fn new(weights: &[u64]) -> Option<Self> {
        let least = *weights.iter().min()?;
        let total: u64 = weights.iter().sum();
        let count = weights.len() as u32;
        let units = (UNITS_PER_SERVER * count).max(MIN_SLOTS);
        let points = units.next_power_of_two();
        let fine = (u64::from(SLOTS_OF_THE_LEAST) * total).div_ceil(least).min(u64::from(MAX_SLOTS)) as u32;
        let slots = points.max((SLOTS_PER_SERVER * count).next_power_of_two()).max(fine.next_power_of_two());
        Some(Self { slots, points, units })
    }

    /// First slot of the unit of a point, and the distance to the unit's next slots.
    ///
    /// Linear hashing: the first `units - points / 2` pairs of half-size units have been split.
    fn unit(self, point: u32) -> (u32, u32) {
        let half = self.points / 2;
        if point % half < self.units - half { (point, self.points) } else { (point % half, half) }
    }
}

/// Weights that count: those above 0, reduced; when there are none, 1 for each server.
pub(super) fn effective(weights: impl IntoIterator<Item = u32>) -> Vec<u64> {
    let weights: Vec<u32> = weights.into_iter().collect();
    let mut effective: Vec<u64> =
        weights.iter().filter(|&&weight| weight > 0).map(|&weight| u64::from(weight)).collect();
    if effective.is_empty() {
        effective = vec![1; weights.len()];
    }
    reduce(&mut effective);
    // So that every weight above 0 is worth a slot of the largest table.
    let floor = (2 * effective.iter().sum::<u64>()).div_ceil(u64::from(MAX_SLOTS));
    effective.iter_mut().for_each(|weight| *weight = (*weight).max(floor));
    effective
}

/// Owners of all slots, as places in `members` (which are in order of number).
pub(super) fn slots(members: &[Share]) -> Vec<u16> {
    let weights = effective(members.iter().map(|member| member.weight));
    let Some(shape) = Shape::new(&weights) else { return Vec::new() };
    let all = weights.len() == members.len();
    let mut claimants: Vec<Claimant> = (0_u16..)
        .zip(members)
        .filter(|(_, member)| all || member.weight > 0)
        .zip(weights)
        .map(|((place, member), weight)| Claimant::new(place, member.number, weight, shape))
        .collect();
    set_quotas(&mut claimants, shape);
    let mut board = Board::new(shape);
    let mut sum = claimants.iter().map(|claimant| claimant.rate).sum();
    while !claimants.is_empty() {
        sum = round(&mut claimants, sum, &mut board);
    }
    board.owners
}

/// A server that claims slots.
struct Claimant {
    place: u16,
    weight: u64,
    /// Tie-break of the quotas.
    rank: u64,
    /// Slots that it still must get.
    quota: u32,
    /// What it earns in a round: its weight for each point of its permutation that it has not visited.
    rate: u64,
    /// Next point, before it is cut to the number of points.
    point: u32,
    skip: u32,
    growth: u32,
    /// Saved up towards turns.
    credit: u64,
}

impl Claimant {
    fn new(place: u16, number: u64, weight: u64, shape: Shape) -> Self {
        let rank = mix(number);
        Self {
            place,
            weight,
            rank,
            quota: 0,
            rate: weight * u64::from(shape.points),
            point: rank as u32,
            // Odd skip, growth a multiple of 4: a polynomial that permutes the residues of every power of two
            // (Rivest, "Permutation polynomials modulo 2^w", 2001).
            skip: (rank >> 32) as u32 | 1,
            growth: (mix(rank) as u32 & !7) | 4,
            credit: 0,
        }
    }

    fn visit(&mut self, board: &mut Board) {
        let point = self.point & (board.shape.points - 1);
        self.point = self.point.wrapping_add(self.skip);
        self.skip = self.skip.wrapping_add(self.growth);
        self.rate -= self.weight;
        self.quota -= board.claim(point, self.place, self.quota);
    }
}

/// Largest remainder: whole slots by weight, the rest to those who lost most by rounding down.
fn set_quotas(claimants: &mut [Claimant], shape: Shape) {
    let total: u64 = claimants.iter().map(|claimant| claimant.weight).sum();
    let slots = u64::from(shape.slots);
    let mut rest = shape.slots;
    let mut lost = Vec::with_capacity(claimants.len());
    for (index, claimant) in claimants.iter_mut().enumerate() {
        claimant.quota = (slots * claimant.weight / total) as u32;
        rest -= claimant.quota;
        lost.push((core::cmp::Reverse(slots * claimant.weight % total), claimant.rank, index));
    }
    lost.sort_unstable();
    for (_, _, index) in lost.into_iter().take(rest as usize) {
        claimants[index].quota += 1;
    }
}

/// One round: everybody earns credit, a turn costs what they earn on average in [`ROUNDS_PER_TURN`] rounds.
///
/// Takes the sum of all rates, and answers that of those who still have a quota; the others have left.
fn round(claimants: &mut Vec<Claimant>, sum: u64, board: &mut Board) -> u64 {
    let price = sum / claimants.len() as u64 * ROUNDS_PER_TURN;
    let (mut next, mut served) = (0, false);
    for claimant in claimants.iter_mut() {
        claimant.credit += claimant.rate;
        while claimant.credit >= price && claimant.quota > 0 {
            claimant.credit -= price;
            claimant.visit(board);
        }
        if claimant.quota > 0 {
            next += claimant.rate;
        } else {
            served = true;
        }
    }
    if served {
        claimants.retain(|claimant| claimant.quota > 0);
    }
    next
}

/// The table while it is filled.
struct Board {
    shape: Shape,
    owners: Vec<u16>,
    /// A bit for each unit with a free slot, by its first slot; small enough to stay in the cache.
    open: Vec<u64>,
}

impl Board {
    fn new(shape: Shape) -> Self {
        Self {
            shape,
            owners: vec![FREE; shape.slots as usize],
            open: vec![u64::MAX; (shape.points / u64::BITS) as usize],
        }
    }

    /// Gives the free slots of the point's unit to the server, at most `most`; answers how many.
    fn claim(&mut self, point: u32, place: u16, most: u32) -> u32 {
        let (first, stride) = self.shape.unit(point);
        let (word, bit) = ((first / u64::BITS) as usize, 1_u64 << (first % u64::BITS));
        if self.open[word] & bit == 0 {
            return 0;
        }
        let mut claimed = 0;
        for owner in self.owners[first as usize..].iter_mut().step_by(stride as usize) {
            if *owner != FREE {
                continue;
            }
            if claimed == most {
                return claimed;
            }
            *owner = place;
            claimed += 1;
        }
        self.open[word] &= !bit;
        claimed
    }
}
