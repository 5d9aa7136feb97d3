// schema.ts: the part of JSON Schema and OpenAPI 3.1 that openapi.json uses, and its words for people.

export interface Schema {
  $ref?: string
  type?: string | string[]
  description?: string
  properties?: Record<string, Schema>
  required?: string[]
  items?: Schema
  oneOf?: Schema[]
  enum?: unknown[]
  const?: unknown
  default?: unknown
  minimum?: number
  maximum?: number
  minItems?: number
  maxItems?: number
  minLength?: number
  format?: string
  additionalProperties?: boolean | Schema
}

export interface Media {
  schema: Schema
  example?: unknown
  examples?: Record<string, { summary: string; value: unknown }>
}

export interface Response {
  $ref?: string
  description?: string
  content?: Record<string, Media>
}

export interface Parameter {
  name: string
  in: string
  schema: Schema
  description?: string
  required?: boolean
}

export interface Operation {
  operationId: string
  summary: string
  security?: unknown[]
  parameters?: Parameter[]
  requestBody?: { content: Record<string, Media> }
  responses: Record<string, Response>
}

export interface OpenApi {
  info: { title: string; version: string; summary: string; description: string }
  paths: Record<string, Record<string, Operation>>
  components: {
    schemas: Record<string, Schema>
    responses: Record<string, Response>
    securitySchemes: Record<string, { description: string }>
  }
}

export const escapeHtml = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')

export const nameOf = (ref: string): string => ref.slice(ref.lastIndexOf('/') + 1)

const code = (text: string): string => `<code>${escapeHtml(text)}</code>`

/** "string", "array of integers", "integer or "full"": HTML. */
export function typeWords(schema: Schema, plural = ''): string {
  if (schema.$ref) return `<a href="#schema-${nameOf(schema.$ref)}">${nameOf(schema.$ref)}</a>`
  if (schema.oneOf) return schema.oneOf.map((choice) => typeWords(choice)).join(', or ')
  if (schema.enum) return schema.enum.map((value) => code(JSON.stringify(value))).join(', ')
  if (schema.const !== undefined) return code(JSON.stringify(schema.const))
  const types = [schema.type ?? (schema.properties ? 'object' : 'any')].flat()
  return types
    .map((type) =>
      type === 'array' && schema.items ? `array${plural} of ${typeWords(schema.items, 's')}` : type + plural,
    )
    .join(' or ')
}

function range(low: number | undefined, high: number | undefined, of: string): string[] {
  if (low !== undefined && high !== undefined) return [`${low} to ${high}${of}`]
  if (low !== undefined) return [`at least ${low}${of}`]
  return high !== undefined ? [`at most ${high}${of}`] : []
}

/** Limits and default, as words. */
export function limitWords(schema: Schema): string[] {
  const inner =
    schema.items && !schema.items.$ref
      ? limitWords({ ...schema.items, default: undefined }).map((words) => `each ${words}`)
      : []
  const choices = schema.oneOf?.length === 2 ? schema.oneOf.flatMap(limitWords) : [] // of more nobody could tell whose they are
  return [
    ...range(schema.minimum, schema.maximum, ''),
    ...range(schema.minItems, schema.maxItems, ' items'),
    ...(schema.minLength === 1 ? ['not empty'] : []),
    ...inner,
    ...new Set(choices),
    ...(schema.default === undefined ? [] : [`default ${JSON.stringify(schema.default)}`]),
  ]
}

export interface Field {
  name: string // with its parents': next.rank
  schema: Schema
  required: boolean
}

/** The objects directly within a schema, that are no schema of their own. */
const within = (schema: Schema): Schema[] => [
  schema,
  ...(schema.items ? within(schema.items) : []),
  ...(schema.oneOf ?? []).flatMap(within),
]

/** Every field of an object and of the objects within it. */
export function fieldsOf(schema: Schema, prefix = ''): Field[] {
  return within(schema).flatMap(({ properties = {}, required = [] }) =>
    Object.entries(properties).flatMap(([name, inner]) => {
      const dots = inner.items?.properties ? '[].' : '.'
      return [
        { name: prefix + name, schema: inner, required: required.includes(name) },
        ...fieldsOf(inner, `${prefix}${name}${dots}`),
      ]
    }),
  )
}
