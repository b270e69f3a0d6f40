// The commands of `sluicebox image`, by their names.
import type { Command } from '../tool.js'
import { check } from './check.js'
import { commit } from './commit.js'
import { compare } from './compare.js'
import { convert } from './convert.js'
import { create } from './create.js'
import { info } from './info.js'
import { map } from './map.js'
import { measure } from './measure.js'
import { rebase } from './rebase.js'
import { resize } from './resize.js'
import { snapshot } from './snapshot.js'

export const imageCommands: Readonly<Record<string, Command>> = {
  check,
  commit,
  compare,
  convert,
  create,
  info,
  map,
  measure,
  rebase,
  resize,
  snapshot,
}
