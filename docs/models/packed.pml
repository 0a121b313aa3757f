/*
 * Event suppression of the packed ring, both directions, on a machine that holds stores back.
 *
 * What stands for what, in vdpa-ring/src:
 *
 *   driver                an owner of `PackedDriver` (packed/driver.rs):
 *     add                   `add` of a chain of one or two slots; the first slot since the last publication is kept back
 *     publish               `publish`; a kick where it says so
 *     take                  one chain of `take_used` (packed/driver/take.rs)
 *     arm                   `arm`; false allows to sleep until a call
 *     disarm                `disarm`
 *   device                an owner of `PackedDevice` (packed/device.rs):
 *     take                  one chain of `take`
 *     add, publish          `commit`: the used descriptors behind the first, then the private `publish`, which writes
 *                           the first; a call where it says so
 *     arm                   `arm`; false allows to sleep until a kick
 *     disarm                `disarm`
 *   stores                the store buffer of one side (stores.pml)
 *   fence                 `RingMem::full`
 *   packed_wants          `packed_wants`, `need_event_packed` and `need_event` (event.rs), in BITS bits instead of 16
 *   AVAILABLE, USED       `packed::is_avail` and `is_used` of a meta word's flags (descriptor.rs)
 *
 * A position is a number below twice the size: slot and lap. OFF_WRAP makes the event word of it, slot and wrap counter.
 *
 * Three forms:
 *
 *   (none)                The driver publishes when it likes, as much as it likes; the device takes, arms, disarms and
 *                         sleeps in any order that the contract of `arm` allows.
 *   CALLS                 The same with device and driver in each other's place.
 *   LOOP                  Both directions at once; the owners follow the loop that they are meant to.
 *
 * Checked: nobody sleeps while the peer has published something for it, has done with that publication, and left no
 * notification (monitor, in stores.pml); a chain is taken whole; the store buffers are deep enough. With LOOP also that
 * nothing comes to a stop, and (non-progress cycles) that chains come round for ever.
 *
 * Options (-D): EVENT_IDX; SIZE; ANY_ORDER: the two event words are stored, and loaded, in either order, which must not
 * matter. Broken on purpose, each of which must be found:
 *   NO_FENCE_PRODUCER     no fence in `publish` (NO_FENCE_DRIVER_PUBLISH, NO_FENCE_DEVICE_COMMIT: of that side alone)
 *   NO_FENCE_CONSUMER     no fence in `arm` (NO_FENCE_DRIVER_ARM, NO_FENCE_DEVICE_ARM: of that side alone)
 *   NO_FENCE              none of them
 *   NO_SECOND_LOOK        `arm` asks and does not look again
 *   NAIVE_EVENT_TEST      the event's wrap counter is not looked at (with EVENT_IDX)
 *   STALE_EVENT           `arm` leaves the event where the first one put it (with EVENT_IDX)
 *   SHOW_FIRST            the first slot is not kept back
 */

/* No power of two. */
#ifndef SIZE
#define SIZE 3
#endif
#define LAPS (2 * SIZE)
#define ON(position, by) (((position) + (by)) % LAPS)
#define BEYOND(from, to) (((to) + LAPS - (from)) % LAPS)
#define SLOT(position) ((position) % SIZE)
#define WRAP(position) (1 - (position) / SIZE)

/* The event test is made with more bits than slots, as in the code. */
#define BITS 4
#define MASK ((1 << BITS) - 1)

/* The flags of a slot's meta word. */
#define AVAIL_BIT 1
#define USED_BIT 2
#define NEXT_BIT 4
#define SHOWN_AT(position) (WRAP(position) -> AVAIL_BIT : USED_BIT)
#define DONE_AT(position) (WRAP(position) -> AVAIL_BIT | USED_BIT : 0)
#define AVAILABLE(meta, position) (((meta) & 3) == SHOWN_AT(position))
#define USED(meta, position) (((meta) & 3) == DONE_AT(position))

/* The event words of a side, behind the slots. */
#define MODE(side) (SIZE + 2 * (side))
#define POSITION(side) (SIZE + 2 * (side) + 1)
#define WORDS (SIZE + 4)
#define ENABLE 0
#define DISABLE 1
#define AT_POSITION 2
#define OFF_WRAP(position) (SLOT(position) | WRAP(position) << 3)

#ifdef LOOP
#define TWO_WAY true
#else
#define TWO_WAY false
#endif

/* The slots of a publication, and a disarm. */
#define DEPTH (SIZE + 1)

/* What each side keeps to itself: what it has shown, what it has written beyond that, how far it has taken the peer's. */
byte shown[2], ahead[2], taken[2];
/* Slots of the chain that begins at a slot; each half has its own copy, which is the same. */
byte slots[SIZE];

#ifdef SHOW_FIRST
/* Taken before it is counted as shown: only what is taken is looked at. */
#define LEFT(sleeper) false
#else
#define LEFT(sleeper) (shown[1 - sleeper] != taken[sleeper])
#endif

#include "stores.pml"

/* The side's own latest store, or memory. */
inline load(position, value) {
	where = SLOT(position);
	value = mem[where];
	i = 0;
	do
	:: i < held[me] ->
		if
		:: at_of[me * DEPTH + i] == where -> value = value_of[me * DEPTH + i]
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0;
	where = 0
}

/* The meta word that `me` writes at a position. */
#define META(position, next) \
	(me == DRIVER -> SHOWN_AT(position) | (next -> NEXT_BIT : 0) : DONE_AT(position))

/* Whether the chain that begins at a position has a second slot. */
#define IS_LIST(position) (slots[SLOT(position)] == 2)

/* Stores the meta word of a position. */
inline write(position, next) {
	where = SLOT(position);
	what = META(position, next);
	store(me, where, what);
	where = 0;
	what = 0
}

inline add(by) {
	atomic {
		if
		:: me == DRIVER || !TWO_WAY -> slots[SLOT(ahead[me])] = by
		:: else
		fi;
		if
#ifndef SHOW_FIRST
		:: ahead[me] == shown[me]
#endif
		:: else -> write(ahead[me], IS_LIST(ahead[me]))
		fi;
		if
		:: me == DRIVER && by == 2 -> second = ON(ahead[me], 1); write(second, false); second = 0
		:: else
		fi;
		ahead[me] = ON(ahead[me], by)
	}
}

inline packed_wants(answer, mode, event, new, by) {
	if
	:: mode == DISABLE -> answer = false
#ifdef EVENT_IDX
	:: mode == AT_POSITION ->
		/* An event of the other lap lies one ring behind. */
#ifdef NAIVE_EVENT_TEST
		event = event & 7;
#else
		event = (((event >> 3) == WRAP(new) -> event & 7 : (event & 7) - SIZE) & MASK);
#endif
		answer = (((SLOT(new) - event - 1) & MASK) < by)
#endif
	:: else -> answer = true
	fi
}

inline publish(fenced) {
	atomic {
		publishing[me] = true;
#ifndef SHOW_FIRST
		write(shown[me], IS_LIST(shown[me]));
#endif
		by = BEYOND(shown[me], ahead[me]);
		shown[me] = ahead[me]
	}
	fence(me, fenced);
#ifdef ANY_ORDER
	if
	:: mode = mem[MODE(1 - me)]; seen = mem[POSITION(1 - me)]
	:: seen = mem[POSITION(1 - me)]; mode = mem[MODE(1 - me)]
	fi;
#else
	mode = mem[MODE(1 - me)];
	seen = mem[POSITION(1 - me)];
#endif
	d_step { packed_wants(wanted, mode, seen, shown[me], by); by = 0; mode = 0; seen = 0 }
	tell(1 - me)
}

/* Whether the peer's word at the position says that there is something. */
#define THERE(meta) (me == DRIVER -> USED(meta, taken[me]) : AVAILABLE(meta, taken[me]))

/* A driver whose device alone is modelled makes the slots available again at once. */
inline again(position) {
	if
	:: me == DRIVER && !TWO_WAY -> mem[SLOT(position)] = SHOWN_AT(ON(position, SIZE))
	:: else
	fi
}

inline take(found) {
	d_step {
		may_sleep = false;
		load(taken[me], seen);
		found = THERE(seen)
	}
	if
	:: !found
	:: found && me == DEVICE && (seen & NEXT_BIT) ->
		d_step {
			second = ON(taken[me], 1);
			load(second, seen);
			/* All of a list is there once its first slot is. */
			assert(AVAILABLE(seen, second));
			assert(IS_LIST(taken[me]));
			taken[me] = ON(taken[me], 2);
			second = 0
		}
	:: else ->
		d_step {
			assert(me == DRIVER || !IS_LIST(taken[me]));
			again(taken[me]);
			if
			:: IS_LIST(taken[me]) -> second = ON(taken[me], 1); again(second); second = 0; taken[me] = ON(taken[me], 2)
			:: else -> taken[me] = ON(taken[me], 1)
			fi
		}
	fi;
	seen = 0
}

inline arm(fenced, may_be_more) {
	atomic {
		may_sleep = false;
#ifdef EVENT_IDX
#ifdef ANY_ORDER
		if
		:: armed != ARMED -> store(me, MODE(me), AT_POSITION); armed = ARMED
		:: true
		fi;
#endif
		if
#ifdef STALE_EVENT
		:: armed != UNKNOWN
#endif
		:: else -> what = OFF_WRAP(taken[me]); store(me, POSITION(me), what); what = 0
		fi;
		if
		:: armed != ARMED -> store(me, MODE(me), AT_POSITION)
		:: else
		fi;
#else
		if
		:: armed != ARMED -> store(me, MODE(me), ENABLE)
		:: else
		fi;
#endif
		armed = ARMED
	}
	fence(me, fenced);
#ifdef NO_SECOND_LOOK
	may_sleep = true
#else
	d_step {
		load(taken[me], seen);
		may_sleep = !(may_be_more && THERE(seen));
		seen = 0
	}
#endif
}

inline disarm() {
	atomic {
		may_sleep = false;
		if
		:: armed == DISARMED
		:: else -> armed = DISARMED; store(me, MODE(me), DISABLE)
		fi
	}
}

#define ME(side) byte me = side, armed, by, mode, seen, second, where, what, i; bool wanted, found, may_sleep

#ifndef LOOP

/* The peer gives back at once what it takes: as much as it can ever be ahead. */
#define ROOM (SIZE - BEYOND(taken[1 - me], ahead[me]))

inline producer(fenced) {
	do
	:: ROOM >= 1 -> add(1)
	:: ROOM >= 2 -> add(2)
	:: ahead[me] != shown[me] -> publish(fenced)
	od
}

inline consumer(fenced) {
	do
	:: take(found); found = false
	:: arm(fenced, true)
	:: disarm()
	:: may_sleep -> sleep(me)
	od
}

#ifdef CALLS
proctype driver() { ME(DRIVER); consumer(DRIVER_ARM_FENCED) }
proctype device() { ME(DEVICE); producer(DEVICE_COMMIT_FENCED) }
#else
proctype driver() { ME(DRIVER); producer(DRIVER_PUBLISH_FENCED) }
proctype device() { ME(DEVICE); consumer(DEVICE_ARM_FENCED) }
#endif

#else

/* What the driver may still write; what the device has not given back, and not written either. */
#define ROOM (SIZE - BEYOND(taken[DRIVER], ahead[DRIVER]))
#define OPEN BEYOND(ahead[DEVICE], taken[DEVICE])

/* Sends as it likes, then takes back what is there; sleeps if more is to come. */
proctype driver() {
	ME(DRIVER);
	do
	:: disarm();
		do
		:: ROOM >= 1 -> add(1)
		:: ROOM >= 2 -> add(2)
		:: ROOM < SIZE -> break
		od;
		if
		:: ahead[me] != shown[me] -> publish(DRIVER_PUBLISH_FENCED)
		:: else
		fi;
		do
		:: shown[me] != taken[me] ->
			take(found);
			if
			:: found ->
progress:			found = false
			:: else -> break
			fi
		:: shown[me] == taken[me] -> break
		od;
		arm(DRIVER_ARM_FENCED, shown[me] != taken[me]);
		if
		:: may_sleep && shown[me] != taken[me] -> sleep(me)
		:: else
		fi
	od
}

/* Takes what is there and gives it back; sleeps if there is nothing. */
proctype device() {
	ME(DEVICE);
	do
	:: disarm();
		do
		:: BEYOND(shown[me], taken[me]) < SIZE ->
			take(found);
			if
			:: found -> found = false
			:: else -> break
			fi
		:: BEYOND(shown[me], taken[me]) == SIZE -> break
		od;
		do
		:: OPEN > 0 -> by = slots[SLOT(ahead[me])]; add(by)
		:: ahead[me] != shown[me] -> publish(DEVICE_COMMIT_FENCED); break
		:: OPEN == 0 && ahead[me] == shown[me] -> break
		od;
		if
		:: OPEN == 0 ->
			arm(DEVICE_ARM_FENCED, BEYOND(shown[me], taken[me]) < SIZE);
			if
			:: may_sleep -> sleep(me)
			:: else
			fi
		:: else
		fi
	od
}

#endif

init {
	atomic {
#ifdef CALLS
		d_step {
			byte i;
			do
			:: i < SIZE -> mem[i] = AVAIL_BIT; i++
			:: else -> break
			od;
			i = 0
		}
#endif
		run stores(DRIVER); run stores(DEVICE); run driver(); run device()
	}
}
