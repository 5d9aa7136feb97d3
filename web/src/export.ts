// export.ts: what is shown as files and as a command line. CSV: a row a token, nats. JSON: the server's own reply, put
// together from the streamed lines. curl: the request that gives the same, for a POSIX shell.
import { logprobOf, positionOf } from './metric'
import type { Analysis, DistributionRequest, Token } from './types'

function csvField(value: string | number | null | undefined): string {
  if (value === null || value === undefined || (typeof value === 'number' && !Number.isFinite(value))) return ''
  const text = String(value)
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

const hex = (token: Token): string => token.bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('')

/** The values of row i belong to the distribution before token i; the first row has none. */
export function toCsv(analyses: { name: string; analysis: Analysis }[], pins: readonly Token[]): string {
  const names = [
    'text',
    'index',
    'token_id',
    'token',
    'bytes_hex',
    'surprisal_nats',
    'rank',
    'entropy_nats',
    'varentropy_nats2',
  ]
  names.push('logsumexp', 'top1_id', 'top1_token', 'top1_logprob', ...pins.map((pin) => `logprob_of_${pin.id}`))
  const rows = [names.join(',')]
  for (const { name, analysis } of analyses) {
    analysis.tokens.forEach((token, i) => {
      const position = positionOf(analysis, i)
      const next = position?.next
      const top = position?.top[0]
      const surprisal = next?.logprob[0]
      const fields: (string | number | null | undefined)[] = [
        name,
        i,
        token.id,
        token.text,
        hex(token),
        surprisal === undefined || surprisal === null ? null : -surprisal,
      ]
      fields.push(next?.rank, position?.entropy[0], position?.varentropy[0], position?.logsumexp[0])
      fields.push(top?.id, top?.text, top ? logprobOf(top) : null)
      for (const pin of pins) fields.push(position?.token_ids.find((entry) => entry.id === pin.id)?.logprob[0])
      rows.push(fields.map(csvField).join(','))
    })
  }
  return rows.join('\r\n') + '\r\n' // RFC 4180
}

/** As format "json" would have answered. */
export function toJson(analysis: Analysis): string {
  const { head, tokens, summary, positions, timing } = analysis
  return (
    JSON.stringify({ ...head, results: [{ index: 0, tokens, summary, positions }], timing_ms: timing }, null, 1) + '\n'
  )
}

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

export function toCurl(origin: string, request: DistributionRequest, withKey: boolean): string {
  const parts = [`curl -s ${quoted(`${origin}/distribution`)}`, `-H 'Content-Type: application/json'`]
  if (withKey) parts.push('-H "Authorization: Bearer $LOGITD_KEY"')
  parts.push(`-d ${quoted(JSON.stringify(request))}`)
  return parts.join(' \\\n  ')
}
