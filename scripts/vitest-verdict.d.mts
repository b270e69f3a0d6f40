interface Report {
  readonly testResults: readonly {
    readonly assertionResults: readonly { readonly title: string; readonly status: string }[]
  }[]
}
export function verdictOf(report: Report, rule: string, exitCode: number): string
