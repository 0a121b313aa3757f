//! The rows.

use super::{ALL, BOTH, CLASSES, PACKED, READ, Row, SPLIT, Section, Target, WRITTEN, here, later};

const VDUSE: &str = "needs an end that serves a device by VDUSE";

use Section::{A, B, C, D, E, F, G, H, I, J, K, L, M, N};
use Target::{Blk, Ctrl, Rx, Tx};

/// Every row, by number.
pub const ROWS: &[Row] = &[
    here(1, A, "a descriptor that goes on at itself")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(2, A, "two descriptors that go on at one another")
        .ring(SPLIT)
        .device(SPLIT, ALL),
    here(3, A, "next at or beyond the queue size")
        .ring(SPLIT)
        .device(SPLIT, ALL),
    here(4, A, "a head at or beyond the queue size")
        .ring(SPLIT)
        .device(SPLIT, ALL),
    here(5, A, "a chain of one more than the queue size")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(6, A, "a chain of exactly the queue size")
        .legal()
        .ring(BOTH)
        .device(BOTH, ALL),
    here(7, A, "readable after writable")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(8, A, "no writable part")
        .ring(BOTH)
        .device(BOTH, WRITTEN),
    here(9, A, "no readable part").ring(BOTH).device(BOTH, READ),
    here(10, A, "the same head twice in a batch")
        .ring(SPLIT)
        .device(SPLIT, ALL),
    here(11, A, "undefined flag bits")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(12, A, "all fields at their maximum")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(13, B, "length 0 at a valid address").device(BOTH, ALL),
    here(14, B, "length 0 at an invalid address").device(BOTH, ALL),
    here(15, B, "address and length wrap 64 bits").device(BOTH, ALL),
    here(16, B, "lengths add up to more than 32 bits")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(17, B, "a buffer that spans a hole").device(BOTH, ALL),
    here(18, B, "a buffer that spans two regions")
        .legal()
        .device(BOTH, ALL),
    here(19, B, "a buffer that ends where its region ends")
        .legal()
        .device(BOTH, ALL),
    here(20, B, "one byte past the end of the region").device(BOTH, ALL),
    here(21, B, "a buffer in its own ring").device(BOTH, ALL),
    here(22, B, "a buffer in another queue's ring").device(BOTH, ALL),
    here(23, B, "a buffer in a region that was just unmapped").device(BOTH, ALL),
    here(24, B, "a write into a mapping for reading").device(BOTH, WRITTEN),
    here(25, B, "overlapping buffers").device(BOTH, ALL),
    here(26, B, "an address above all that can be mapped").device(BOTH, ALL),
    here(27, C, "a table that was not negotiated")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(28, C, "a table in a table")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(29, C, "a table with NEXT")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(30, C, "a table with WRITE")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(31, C, "a table's length is no multiple of 16")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(32, C, "a table of length 0")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(33, C, "a table of 4 GiB").ring(BOTH).device(BOTH, ALL),
    here(34, C, "a table out of bounds")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(35, C, "a loop in a table")
        .ring(SPLIT)
        .device(SPLIT, ALL),
    here(36, C, "a table that crosses regions").device(BOTH, ALL),
    here(37, C, "a table of more entries than the limit")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(38, C, "a table that changes while it is walked")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(39, D, "the available index jumps by more than the size")
        .ring(SPLIT)
        .device(SPLIT, ALL),
    here(40, D, "the available index goes back")
        .ring(SPLIT)
        .device(SPLIT, ALL),
    here(41, D, "the indices wrap at 65535")
        .legal()
        .ring(SPLIT)
        .device(SPLIT, ALL),
    here(42, D, "the driver scribbles over the used ring")
        .ring(SPLIT)
        .device(SPLIT, ALL),
    here(43, D, "used_event and avail_event at every offset")
        .ring(SPLIT)
        .device(SPLIT, ALL),
    here(44, D, "a queue of size 1")
        .legal()
        .ring(SPLIT)
        .device(SPLIT, ALL),
    here(45, E, "a wrong wrap counter at the start")
        .ring(PACKED)
        .device(PACKED, ALL),
    here(46, E, "the wrap counter flips within a chain")
        .ring(PACKED)
        .device(PACKED, ALL),
    here(47, E, "the first descriptor available before the rest")
        .ring(PACKED)
        .device(PACKED, ALL),
    here(48, E, "AVAIL and USED both 1")
        .ring(PACKED)
        .device(PACKED, ALL),
    here(49, E, "an id at the size, and 0xFFFF")
        .ring(PACKED)
        .device(PACKED, ALL),
    here(50, E, "the same id twice")
        .ring(PACKED)
        .device(PACKED, ALL),
    here(51, E, "a chain longer than the ring")
        .ring(PACKED)
        .device(PACKED, ALL),
    here(52, E, "a chain around the ring's end")
        .legal()
        .ring(PACKED)
        .device(PACKED, ALL),
    here(53, E, "an event offset at or beyond the size")
        .ring(PACKED)
        .device(PACKED, ALL),
    here(54, E, "reserved event flags")
        .ring(PACKED)
        .device(PACKED, ALL),
    here(55, E, "events at a descriptor without EVENT_IDX")
        .ring(PACKED)
        .device(PACKED, ALL),
    here(56, E, "INDIRECT with NEXT, which must not spin")
        .ring(PACKED)
        .device(PACKED, ALL),
    here(57, E, "queues of size 1 and size 7")
        .legal()
        .ring(PACKED)
        .device(PACKED, ALL),
    here(58, E, "a full ring wraps")
        .ring(PACKED)
        .device(PACKED, ALL),
    here(59, E, "buffers out of order where order was negotiated")
        .ring(PACKED)
        .device(PACKED, ALL),
    here(60, E, "a restored wrap state that cannot be")
        .ring(PACKED)
        .device(PACKED, ALL),
    here(61, F, "length").ring(BOTH).device(BOTH, ALL),
    here(62, F, "address").ring(BOTH).device(BOTH, ALL),
    here(63, F, "flags").ring(BOTH).device(BOTH, ALL),
    here(64, F, "next").ring(SPLIT).device(SPLIT, ALL),
    here(65, F, "a packet's header").device(BOTH, &[Tx]),
    here(66, F, "a request's type and sector").device(BOTH, &[Blk]),
    here(67, F, "a command's length").device(BOTH, &[Ctrl]),
    here(68, F, "an entry of a table")
        .ring(BOTH)
        .device(BOTH, ALL),
    here(69, F, "the available index")
        .ring(SPLIT)
        .device(SPLIT, ALL),
    here(70, G, "misaligned areas").device(BOTH, CLASSES),
    here(71, G, "areas outside memory").device(BOTH, CLASSES),
    here(72, G, "overlapping areas").device(BOTH, CLASSES),
    here(73, G, "size 0, no power of two, above the maximum").device(BOTH, CLASSES),
    here(74, G, "size, addresses, features changed after DRIVER_OK").device(BOTH, CLASSES),
    here(75, G, "a status bit cleared").device(BOTH, CLASSES),
    here(76, G, "DRIVER_OK without FEATURES_OK").device(BOTH, CLASSES),
    here(77, G, "a feature that is not offered").device(BOTH, CLASSES),
    here(78, G, "VERSION_1 or ACCESS_PLATFORM missing").device(BOTH, CLASSES),
    here(79, G, "a queue index out of range in every call").device(BOTH, CLASSES),
    here(80, G, "a kick before DRIVER_OK, and after a reset").device(BOTH, ALL),
    here(81, G, "a reset with work in flight").device(BOTH, ALL),
    here(82, G, "memory unmapped with work in flight").device(BOTH, ALL),
    here(83, G, "a queue reset with work in flight").device(BOTH, ALL),
    here(84, G, "suspended twice, resumed when not suspended").device(BOTH, CLASSES),
    here(85, G, "a state set after the queue is enabled").device(BOTH, CLASSES),
    here(86, G, "a stale base after a reset").device(BOTH, CLASSES),
    here(
        87,
        G,
        "configuration out of bounds, wrapping, of no length, to the very end",
    )
    .device(BOTH, CLASSES),
    here(88, G, "races for the generation").device(BOTH, CLASSES),
    here(89, G, "an address space out of range").device(BOTH, CLASSES),
    here(
        90,
        G,
        "maps that overlap, partial unmaps, floods, last before first, size 0",
    )
    .device(BOTH, CLASSES),
    here(91, H, "an unknown segmentation type").device(BOTH, &[Tx]),
    here(92, H, "segments of size 0").device(BOTH, &[Tx]),
    here(93, H, "headers longer than the packet").device(BOTH, &[Tx]),
    here(94, H, "a checksum out of range").device(BOTH, &[Tx]),
    here(95, H, "a header over 12 descriptors of one byte").device(BOTH, &[Tx]),
    here(96, H, "a receive buffer smaller than the header").device(BOTH, &[Rx]),
    here(97, H, "num_buffers abused").device(BOTH, &[Tx, Rx]),
    here(
        98,
        H,
        "commands: unknown, short, oversized, acknowledged nowhere, looped",
    )
    .device(BOTH, &[Ctrl]),
    here(99, H, "a MAC table whose length overflows").device(BOTH, &[Ctrl]),
    here(100, H, "queue pairs 0, and above the maximum").device(BOTH, &[Ctrl]),
    here(101, I, "a sector at or beyond the capacity").device(BOTH, &[Blk]),
    here(102, I, "an overrun in the sum of the descriptors alone").device(BOTH, &[Blk]),
    here(103, I, "a sector whose byte wraps").device(BOTH, &[Blk]),
    here(104, I, "a length that is no multiple of 512").device(BOTH, &[Blk]),
    here(105, I, "a status that is missing, read-only, of length 0").device(BOTH, &[Blk]),
    here(106, I, "discards: their number, wraps, flags").device(BOTH, &[Blk]),
    here(107, I, "a write to a disk for reading").device(BOTH, &[Blk]),
    here(108, I, "an unknown type").device(BOTH, &[Blk]),
    here(109, I, "a short buffer for the identity").device(BOTH, &[Blk]),
    here(110, J, "a flood of doorbells").device(BOTH, ALL),
    here(111, J, "refilled while it drains").device(BOTH, ALL),
    here(112, J, "a call that calls back into the device").device(BOTH, CLASSES),
    here(113, J, "an eventfd whose counter is full").device(BOTH, CLASSES),
    here(114, J, "a slow consumer, and resubmission without waiting").device(BOTH, ALL),
    here(115, K, "a used id out of range").driver(BOTH),
    here(116, K, "an id replayed").driver(BOTH),
    here(117, K, "an id that is no head").driver(BOTH),
    here(118, K, "a used length that lies").driver(BOTH),
    here(119, K, "the used index jumps").driver(BOTH),
    here(120, K, "an interrupt for nothing").driver(BOTH),
    here(121, K, "a storm of interrupts").driver(BOTH),
    here(122, K, "shared descriptors rewritten").driver(BOTH),
    here(
        123,
        K,
        "capabilities: loops, length 0, outside the BAR, overflows, no queues",
    )
    .driver(BOTH),
    here(124, K, "a status that never reads 0").driver(BOTH),
    here(
        125,
        K,
        "all ones from any register read on, for good or for 50 ms",
    )
    .driver(BOTH),
    here(126, K, "NEEDS_RESET with work in flight").driver(BOTH),
    here(127, K, "FEATURES_OK refused").driver(BOTH),
    here(128, K, "a generation that is never stable").driver(BOTH),
    here(129, K, "an MSI-X vector refused").driver(BOTH),
    here(130, L, "the limit of locked memory at any map").driver(BOTH),
    here(131, L, "the limit of DMA entries").driver(BOTH),
    here(132, L, "a batch of maps rolled back at any entry")
        .driver(BOTH)
        .device(BOTH, CLASSES),
    here(133, L, "an address in a reserved window").driver(BOTH),
    here(134, L, "an unmap that says a short size").driver(BOTH),
    here(135, L, "a reset that the kernel refuses").driver(BOTH),
    here(136, L, "an error or hang-up of the device's descriptor").driver(BOTH),
    here(
        137,
        L,
        "a request to remove, and a BAR that does not decode",
    )
    .driver(BOTH),
    here(138, M, "0, 1 and 9 descriptors in a message").served(BOTH, CLASSES),
    here(139, M, "a short header").served(BOTH, CLASSES),
    here(140, M, "an oversized payload").served(BOTH, CLASSES),
    here(141, M, "an unknown opcode").served(BOTH, CLASSES),
    here(142, M, "an index that is cut (0x10001)").served(BOTH, CLASSES),
    here(143, M, "a memory table that overlaps or wraps").served(BOTH, CLASSES),
    here(144, M, "sizes of the region of what is in flight").served(BOTH, CLASSES),
    here(145, M, "disconnected after every byte").served(BOTH, CLASSES),
    here(146, M, "descriptors on messages that take none").served(BOTH, CLASSES),
    here(147, M, "the log's size and offset wrap").served(BOTH, CLASSES),
    here(148, M, "100000 repeats leak nothing").served(BOTH, CLASSES),
    here(149, N, "a region larger than its file")
        .device(BOTH, CLASSES)
        .served(BOTH, CLASSES),
    here(150, N, "a file that shrinks under traffic")
        .device(BOTH, CLASSES)
        .served(BOTH, CLASSES),
    later(151, N, "a bounce page of VDUSE that is not mapped", VDUSE),
    here(152, N, "a BAR that does not decode, through a doorbell").driver(BOTH),
    here(153, N, "a control call from within a call").device(BOTH, CLASSES),
    here(
        154,
        N,
        "memory unmapped while asynchronous I/O is under way",
    )
    .device(BOTH, &[Blk]),
    here(155, N, "the call replaced under traffic").device(BOTH, ALL),
];
