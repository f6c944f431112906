# syntax=docker/dockerfile:1

# Everything that the build needs, development packages among it.
FROM node:24-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json tsconfig.build.json app.ts server.ts fastify.config.ts ./
COPY plugins plugins
COPY routes routes
COPY schemas schemas
COPY services services
COPY db db
RUN npm run build

# What runs: production packages and compiled code. The optional packages are other machines' Node.
FROM node:24-slim AS packages
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --omit=optional \
  && npm sbom --package-lock-only --omit=dev --omit=optional --sbom-format=cyclonedx > sbom.json \
  && npm cache clean --force

FROM node:24-slim
# One arena for malloc: several keep 5 MB of each process that nobody uses.
ENV NODE_ENV=production MALLOC_ARENA_MAX=1
# server.ts handles signals from its first statement on; in the tenth of a second before it, in which Node starts, PID 1 would
# lose them. With an init Node is not PID 1.
RUN apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY --from=packages /app/node_modules node_modules
COPY --from=build /app/dist dist
# What is in the image, as CycloneDX.
COPY --from=packages /app/sbom.json sbom.json
COPY package.json ./
USER node
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.SERVER_PORT || 8080}/livez`).then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["/usr/bin/tini", "--"]
# Not npm: it would stand between the signals and the service.
CMD ["node", "--max-semi-space-size=16", "dist/server.js"]
