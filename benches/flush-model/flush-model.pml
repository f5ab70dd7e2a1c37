/*
 * The flush model by hand, step for step what flush-model.c, flush-P.litmus and the policies sticky-wbinvd (no CLEAR) or
 * copy-and-clear.c (CLEAR) are to sevsim: the same steps, the same states, one for one. 2 vCPUs, 2 pages, 2 flushers.
 *
 *   spin -a -DP=4 flush-model.pml && gcc -O3 -DSAFETY -DNOREDUCE -o pan pan.c && ./pan -m100000
 *
 * Each d_step, and each statement outside of one, is a step.
 */
#ifndef P
#define P 4		/* CPUs on which vCPUs run, 2 to 4 */
#endif

#define NOWHERE 15

byte marked;		/* the policy's mask, a bit a CPU */
bool busy[P];		/* a vCPU is on the CPU */
bool asked[2 * P];	/* calls under way, by flusher, then CPU */
bool unmapped[2];	/* by page */
byte dirty[2];		/* by page: 1 + the CPU whose cache has the dirty line, 0 for none */

#define call(f, c) asked[(f) * P + (c)]

/* Takes an IPI: writes back and invalidates what the CPU's cache has, and tells the sender. */
#define take(f) d_step { \
		call(f, _pid) -> \
		if :: dirty[0] == _pid + 1 -> dirty[0] = 0 :: else fi; \
		if :: dirty[1] == _pid + 1 -> dirty[1] = 0 :: else fi; \
		call(f, _pid) = 0 \
	}

active [P] proctype irq()
{
end:
	do
	:: take(0)
	:: take(1)
	od
}

#define place(c) d_step { !busy[c] -> busy[c] = 1; cpu = c }

active [2] proctype vcpu()
{
	byte cpu = NOWHERE;
nowhere:
	if
	:: place(0)
	:: place(1)
#if P > 2
	:: place(2)
#endif
#if P > 3
	:: place(3)
#endif
	fi;
entry:
	if
	:: d_step { busy[cpu] = 0; cpu = NOWHERE }; goto nowhere
	:: (marked >> cpu & 1)
	:: !(marked >> cpu & 1); marked = marked | 1 << cpu
	fi;
	/* VMRUN */
	skip;
	do
	:: d_step { !unmapped[0] -> dirty[0] = cpu + 1 }
	:: d_step { !unmapped[1] -> dirty[1] = cpu + 1 }
	:: goto entry
	od
}

/* A dirty line may leave a cache at any moment. */
active proctype caches()
{
end:
	do
	:: d_step { dirty[0] != 0 -> dirty[0] = 0 }
	:: d_step { dirty[1] != 0 -> dirty[1] = 0 }
	od
}

#define me (_pid - P - 3)

#if P == 2
#define all_taken (!call(me, 0) && !call(me, 1))
#elif P == 3
#define all_taken (!call(me, 0) && !call(me, 1) && !call(me, 2))
#else
#define all_taken (!call(me, 0) && !call(me, 1) && !call(me, 2) && !call(me, 3))
#endif

/* The CPUs' order is theirs: the lowest that is left comes next. */
#define send(c) d_step { \
		(unsent >> c & 1) && (unsent & (1 << c) - 1) == 0 -> \
		unsent = unsent & ~(1 << c); \
		call(me, c) = 1 \
	}

active [2] proctype flusher()
{
	byte unsent;

	unmapped[me] = 1;
	if
	:: (marked == 0) -> goto unasked
	:: d_step { marked != 0 -> unsent = marked }
	fi;
#ifdef CLEAR
	marked = 0;
#endif
	do
	:: send(0)
	:: send(1)
#if P > 2
	:: send(2)
#endif
#if P > 3
	:: send(3)
#endif
	:: (unsent == 0 && all_taken) -> break
	od;
unasked:
	/* The page is freed: no line of it may be left. */
	assert(dirty[me] == 0);
end:
	false
}
