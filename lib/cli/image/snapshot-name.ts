/** What -l names: an id or name, by itself or as 'snapshot.id=…' or 'snapshot.name=…'. */
export function snapshotOf(text: string | undefined): string | undefined {
  return text === undefined ? undefined : (/^snapshot\.(?:id|name)=(.*)$/.exec(text)?.[1] ?? text)
}
