/**
 * How long a test waits for what must come, on whatever machine: only a defect waits for it. Mutants are defects, and there are many
 * of them: scripts/mutants.mjs says less.
 */
export const DEADLINE_MS = Number(process.env.SLUICEBOX_TEST_DEADLINE_MS ?? 300_000)
