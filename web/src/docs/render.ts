// render.ts: the API page as HTML, from openapi.json, when the pages are built: every route with its fields, examples and
// errors, and every schema once. The curl lines get the server's own address by docs.ts.
import {
  escapeHtml,
  fieldsOf,
  limitWords,
  nameOf,
  typeWords,
  type Media,
  type OpenApi,
  type Operation,
  type Response,
  type Schema,
} from './schema'

const ORIGIN = 'http://127.0.0.1:8080'
const json = (value: unknown): string =>
  JSON.stringify(value, null, 1).replace(
    /\[\s+([^[\]{}]{0,70}?)\s+\]/g,
    (_, inner: string) => `[${inner.replace(/\s*\n\s*/g, ' ')}]`,
  )
const pre = (text: string, label: string): string =>
  `<pre tabindex="0" aria-label="${escapeHtml(label)}">${escapeHtml(text)}</pre>`

function fieldRows(schema: Schema): string {
  return fieldsOf(schema)
    .map(({ name, schema: field, required }) => {
      const limits = limitWords(field).map(escapeHtml).join('; ')
      return `<tr><th scope="row"><code>${escapeHtml(name)}</code>${required ? ' <abbr title="required">*</abbr>' : ''}</th><td>${typeWords(field)}${limits ? `<br><small>${limits}</small>` : ''}</td><td>${escapeHtml(field.description ?? '')}</td></tr>`
    })
    .join('\n')
}

const fieldTable = (schema: Schema, caption: string): string =>
  `<table><caption>${caption}</caption><thead><tr><th scope="col">Field</th><th scope="col">Type</th><th scope="col">Meaning</th></tr></thead><tbody>${fieldRows(schema)}</tbody></table>`

function curl(path: string, body?: unknown): string {
  const line = `curl -s ${ORIGIN}${path}`
  return body === undefined
    ? line
    : `${line} -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(body).replaceAll("'", `'\\''`)}'`
}

function examplesOf(media: Media | undefined): { summary: string; value: unknown }[] {
  if (media?.examples) return Object.values(media.examples)
  return media?.example === undefined ? [] : [{ summary: 'example', value: media.example }]
}

function requestPart(path: string, operation: Operation, schemas: Record<string, Schema>): string {
  const media = operation.requestBody?.content['application/json']
  const parameters = operation.parameters ?? []
  const query =
    parameters.length > 0
      ? {
          properties: Object.fromEntries(
            parameters.map(({ name, schema, description }) => [name, { ...schema, description: description ?? '' }]),
          ),
        }
      : null
  const body = media?.schema.$ref ? schemas[nameOf(media.schema.$ref)] : undefined
  const examples = media
    ? examplesOf(media).map(
        ({ summary, value }) =>
          `<p class="example">${escapeHtml(summary)}</p>${pre(curl(path, value), `Command line: ${summary}`)}`,
      )
    : [pre(curl(path), 'Command line')]
  return [
    query ? fieldTable(query, 'Parameters of the query') : '',
    body ? fieldTable(body, `Request: JSON <small>* required; other fields are an error</small>`) : '',
    ...examples,
  ].join('\n')
}

function answerPart(response: Response, schemas: Record<string, Schema>): string {
  return Object.entries(response.content ?? {})
    .map(([type, media]) => {
      const known = media.schema.$ref ? schemas[nameOf(media.schema.$ref)] : undefined
      const words = known
        ? `${typeWords(media.schema)}`
        : escapeHtml(media.schema.description ?? media.schema.type?.toString() ?? '')
      const examples = examplesOf(media).map(
        ({ value }) => `<details><summary>Example</summary>${pre(json(value), 'Example of an answer')}</details>`,
      )
      return `<p><code>${escapeHtml(type)}</code>: ${words}</p>${examples.join('')}`
    })
    .join('\n')
}

function errorRows(operation: Operation, shared: Record<string, Response>): string {
  return Object.entries(operation.responses)
    .filter(([status]) => status !== '200')
    .map(([status, response]) => {
      const known = response.$ref ? shared[nameOf(response.$ref)] : response
      return `<tr><th scope="row">${status}</th><td>${escapeHtml(known?.description ?? '')}</td></tr>`
    })
    .join('')
}

function operationPart(path: string, method: string, operation: Operation, { components }: OpenApi): string {
  const open = operation.security?.length === 0
  return `<section id="${operation.operationId}" aria-labelledby="${operation.operationId}-title">
<h2 id="${operation.operationId}-title"><code><b>${method}</b> ${escapeHtml(path)}</code></h2>
<p>${escapeHtml(operation.summary)}.${open ? ' Needs no key.' : ''}</p>
${requestPart(path, operation, components.schemas)}
<h3>Answer</h3>
${answerPart(operation.responses['200']!, components.schemas)}
<table class="errors"><caption>Other answers</caption><tbody>${errorRows(operation, components.responses)}</tbody></table>
</section>`
}

function schemaPart(name: string, schema: Schema): string {
  return `<section id="schema-${name}" aria-labelledby="schema-${name}-title"><h3 id="schema-${name}-title">${name}</h3>
${schema.description ? `<p>${escapeHtml(schema.description)}</p>` : ''}${fieldTable(schema, `Fields of ${name}`)}</section>`
}

function errorsPart({ components }: OpenApi): string {
  const rows = Object.entries(components.responses).map(([name, response]) => {
    const example = response.content?.['application/json']?.example
    return `<tr><th scope="row">${name.replace(/^E/, '')}</th><td>${escapeHtml(response.description ?? '')}</td><td><code>${escapeHtml(JSON.stringify(example))}</code></td></tr>`
  })
  return `<section id="errors" aria-labelledby="errors-title"><h2 id="errors-title">Errors</h2>
<p>Every error is JSON with one sentence that says what was wrong, where, and what is allowed: <a href="#schema-Error">Error</a>.</p>
<table><caption>By status</caption><thead><tr><th scope="col">Status</th><th scope="col">When</th><th scope="col">Example</th></tr></thead><tbody>${rows.join('')}</tbody></table></section>`
}

export function renderDocs(document: OpenApi): string {
  const { info, paths, components } = document
  const operations = Object.entries(paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
  )
  const schemas = Object.entries(components.schemas)
  const links = [
    ...operations.map(
      ({ path, method, operation }) =>
        `<li><a href="#${operation.operationId}"><b>${method}</b> ${escapeHtml(path)}</a></li>`,
    ),
    '<li><a href="#errors">Errors</a></li>',
    ...schemas.map(([name]) => `<li><a href="#schema-${name}">${name}</a></li>`),
  ]
  return `<header><h1>${info.title} API</h1><p>version ${escapeHtml(info.version)}</p><nav aria-label="Pages"><a href="/">Explore</a> <a href="/openapi.json">openapi.json</a></nav></header>
<div class="layout"><nav class="contents" aria-label="Contents"><ul>${links.join('')}</ul></nav>
<main>
<p class="lead">${escapeHtml(info.summary)}. ${escapeHtml(info.description)}</p>
<p>A key is ${escapeHtml(components.securitySchemes.key?.description ?? '')}: <code>Authorization: Bearer KEY</code>.</p>
${operations.map(({ path, method, operation }) => operationPart(path, method, operation, document)).join('\n')}
${errorsPart(document)}
<h2>Objects</h2>
${schemas.map(([name, schema]) => schemaPart(name, schema)).join('\n')}
</main></div>`
}
