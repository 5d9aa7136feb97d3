// vite.d.ts: what Vite lets a module import besides code.
declare module '*.css'
