//! What VFIO's user has to know of configuration space: where the MSI-X table is, and which writes take registers away.

use vdpa_pci::Width;

/// The command register, and its bits that have the function answer at its BARs and reach memory.
pub(crate) const COMMAND: u16 = 0x04;
pub(crate) const MEMORY: u32 = 1 << 1;
pub(crate) const MASTER: u32 = 1 << 2;

/// Where the list of capabilities begins, and who says that there is one.
const STATUS: u16 = 0x06;
const FIRST: u16 = 0x34;
const HAS_LIST: u32 = 1 << 4;

const POWER: u32 = 0x01;
const MSIX: u32 = 0x11;

/// Capabilities are aligned to 4 and behind a header of 64 bytes.
const MOST: usize = (256 - 64) / 4;

/// What is remembered of a function's configuration space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Marks {
    /// The MSI-X table: its BAR, its first byte there and its bytes.
    pub(crate) table: Option<(u8, u64, u64)>,
    /// Where the power state is.
    power: Option<u16>,
}

impl Marks {
    /// Reads them.
    ///
    /// * `read`: a register of configuration space
    ///
    /// # Errors
    /// Those of `read`. What is not as it must be is taken for missing: whoever needs it finds that out.
    pub(crate) fn read<E>(read: impl Fn(u16, Width) -> Result<u32, E>) -> Result<Self, E> {
        let mut marks = Self::default();
        if read(STATUS, Width::U16)? & HAS_LIST == 0 {
            return Ok(marks);
        }
        let mut at = read(FIRST, Width::U8)? & 0xfc;
        for _ in 0..MOST {
            let Some(here) = u16::try_from(at).ok().filter(|at| (64..=244).contains(at)) else {
                break;
            };
            let head = read(here, Width::U16)?;
            match head & 0xff {
                POWER => marks.power = Some(here.saturating_add(4)),
                MSIX => {
                    let size = read(here.saturating_add(2), Width::U16)? & 0x7ff;
                    let table = read(here.saturating_add(4), Width::U32)?;
                    let bytes = u64::from(size).saturating_add(1).saturating_mul(16);
                    marks.table = Some(((table & 7) as u8, u64::from(table & !7), bytes));
                }
                _ => {}
            }
            at = (head >> 8) & 0xfc;
        }
        Ok(marks)
    }

    /// Whether, after this write, a store to a mapped BAR would kill the process: memory decoding goes off, or the power.
    pub(crate) fn takes_registers_away(&self, at: u16, width: Width, value: u32) -> bool {
        let command = byte(COMMAND, at, width, value).is_some_and(|byte| byte & MEMORY == 0);
        let power = self.power.and_then(|power| byte(power, at, width, value));
        command || power.is_some_and(|state| state & 3 != 0)
    }
}

/// The byte that a write puts at `of`, if it reaches that.
fn byte(of: u16, at: u16, width: Width, value: u32) -> Option<u32> {
    let within = of
        .checked_sub(at)
        .filter(|within| *within < u16::from(width.bytes()))?;
    value
        .checked_shr(u32::from(within).saturating_mul(8))
        .map(|value| value & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(change: impl Fn(&mut [u8; 256])) -> Marks {
        let mut space = [0u8; 256];
        (space[6], space[0x34]) = (0x10, 0x40);
        space[0x40..0x48].copy_from_slice(&[0x01, 0x50, 0, 0, 0, 0, 0, 0]);
        space[0x50..0x58].copy_from_slice(&[0x11, 0x00, 0x03, 0x80, 0x04, 0x20, 0, 0]);
        change(&mut space);
        let read = |at: u16, width: Width| {
            let from = usize::from(at);
            let bytes = &space[from..from + usize::from(width.bytes())];
            let value = bytes
                .iter()
                .rev()
                .fold(0u32, |value, byte| value << 8 | u32::from(*byte));
            Ok::<_, ()>(value)
        };
        Marks::read(read).unwrap()
    }

    #[test]
    fn the_table_and_the_power_state_are_found() {
        let found = marks(|_| ());
        assert_eq!(found.table, Some((4, 0x2000, 64)));
        assert_eq!(found.power, Some(0x44));
        assert_eq!(marks(|space| space[6] = 0), Marks::default());
    }

    #[test]
    fn a_list_that_loops_or_leaves_ends() {
        for next in [0x40, 0x50, 0x04, 0xfc, 0xff, 0x3c] {
            let found = marks(|space| space[0x51] = next);
            assert_eq!(found.table, Some((4, 0x2000, 64)), "then {next:#x}");
        }
    }

    #[test]
    fn writes_that_take_registers_away_are_told_whatever_their_width() {
        let marks = marks(|_| ());
        let away = |at, width, value| marks.takes_registers_away(at, width, value);
        assert!(
            away(4, Width::U16, 0x0404) && away(4, Width::U8, 0) && away(4, Width::U32, 0x10_0005)
        );
        assert!(!away(4, Width::U16, 0x0406) && !away(5, Width::U8, 0) && !away(6, Width::U16, 0));
        assert!(
            away(0x44, Width::U16, 3) && away(0x44, Width::U8, 1) && !away(0x44, Width::U32, 0)
        );
        assert!(!away(0x40, Width::U32, 3));
    }
}
