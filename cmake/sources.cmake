# The sources of every target, one row each: the file and the group that it is compiled with where MEMLAYERS_UNITY
# says so ("-": alone), because what files include costs more than they do. No two of a group may have a local name in
# common. A group with a star does without the precompiled header of torch: ATen's smaller ones compile faster still.

# Arithmetic on raw pointers; each instruction set is a file with its own flags.
set(kernels_sources
  src/kernels/dispatch.cpp  -
  src/kernels/quantized.cpp -
  src/kernels/packed_weights.cpp -
  src/kernels/portable.cpp  -)

# Those of x86-64.
set(kernels_x86_64_sources
  src/kernels/avx2.cpp       -
  src/kernels/avx512.cpp     -
  src/kernels/avx512vnni.cpp -)

# Files.
set(io_sources
  src/io/file_system.cpp       system
  src/io/posix_file_system.cpp system
  src/io/posix_file.cpp        system
  src/io/descriptor.cpp        system
  src/io/temporary.cpp         system
  src/io/temporary_folder.cpp  system
  src/io/streams.cpp           system
  src/io/mapped_read.cpp       formats
  src/io/safetensors.cpp       formats
  src/io/folder.cpp            formats
  src/io/run_folder.cpp        formats
  src/io/config.cpp            formats
  src/io/model_config.cpp      models
  src/io/model_config_json.cpp models
  src/io/model_rope.cpp        models
  src/io/train_config.cpp      models
  src/io/config_keys.cpp       formats
  src/io/nearest.cpp           formats
  src/io/json.cpp              formats
  src/io/json_field.cpp        formats
  src/io/file_kind.cpp         formats
  src/io/lines.cpp             formats
  src/io/shown.cpp             formats
  src/io/utf8.cpp              formats
  src/io/base64.cpp            formats
  src/io/json_object.cpp       models
  src/io/model_family.cpp      models
  src/io/weight_shapes.cpp     models
  src/io/model_source.cpp      models
  src/io/finite.cpp            formats
  src/io/gguf/types.cpp        gguf
  src/io/gguf/decode.cpp       gguf
  src/io/gguf/encode.cpp       gguf
  src/io/gguf/metadata.cpp     gguf
  src/io/gguf/file.cpp         gguf
  src/io/gguf/blocks.cpp       gguf
  src/io/gguf/names.cpp        gguf
  src/io/gguf/rope_factors.cpp gguf
  src/io/gguf/vocabulary.cpp   gguf
  src/io/gguf/merges.cpp       gguf
  src/io/gguf/config.cpp       gguf
  src/io/gguf/tokenizer.cpp    gguf_models
  src/io/gguf/source.cpp       gguf_models
  src/io/gguf/writer.cpp       gguf_models
  src/io/gguf/export.cpp       gguf_models
  src/io/write_model.cpp       models)

# Where rows live.
set(pool_sources
  src/pool/mapped_region.cpp -
  src/pool/prefetch.cpp      -
  src/pool/random_rows.cpp   -
  src/pool/finite.cpp        store
  src/pool/rows_file.cpp     store
  src/pool/chunks.cpp        store
  src/pool/overlay.cpp       store
  src/pool/override_map.cpp  store
  src/pool/sub_keys.cpp      store
  src/pool/subjects.cpp      state
  src/pool/log.cpp           state
  src/pool/state.cpp         state
  src/pool/version.cpp       state
  src/pool/recovery.cpp      state
  src/pool/patch.cpp         state
  src/pool/patch_sets.cpp    state
  src/pool/snapshot.cpp      state
  src/pool/store.cpp         edits
  src/pool/store_parts.cpp   edits
  src/pool/commits.cpp       edits
  src/pool/edits.cpp         edits
  src/pool/base_chunk.cpp    edits
  src/pool/growth.cpp        edits
  src/pool/compaction.cpp    edits
  src/pool/folded_subjects.cpp edits
  src/pool/log_follower.cpp  edits)

# Processes.
set(dist_sources
  src/dist/world.cpp       -
  src/dist/mpi_world.cpp   -
  src/dist/collectives.cpp -
  src/dist/pool_layout.cpp -)

# Chat templates' language.
set(jinja_sources
  src/jinja/text.cpp              values
  src/jinja/value.cpp             values
  src/jinja/numbers.cpp           -
  src/jinja/characters.cpp        -
  src/jinja/lexer.cpp             -
  src/jinja/token_reader.cpp      -
  src/jinja/expression_parser.cpp -
  src/jinja/parser.cpp            -
  src/jinja/expressions.cpp       values
  src/jinja/statements.cpp        -
  src/jinja/macro.cpp             -
  src/jinja/run.cpp               values
  src/jinja/loop.cpp              values
  src/jinja/template.cpp          -
  src/jinja/callable.cpp          values
  src/jinja/operators.cpp         -
  src/jinja/access.cpp            -
  src/jinja/repr.cpp              -
  src/jinja/layout.cpp            -
  src/jinja/format.cpp            -
  src/jinja/json_text.cpp         -
  src/jinja/methods.cpp           -
  src/jinja/text_methods.cpp      -
  src/jinja/split.cpp             -
  src/jinja/filters.cpp           -
  src/jinja/text_filters.cpp      -
  src/jinja/number_filters.cpp    -
  src/jinja/sequence_filters.cpp  -
  src/jinja/choice_filters.cpp    -
  src/jinja/tests.cpp             -
  src/jinja/functions.cpp         -)

# Tokenizers, chat templates, documents, batches.
set(text_sources
  src/text/chat_files.cpp              -
  src/text/chat_request.cpp            -
  src/text/chat_template.cpp           -
  src/text/documents.cpp               tokenizer
  src/text/token_cache.cpp             tokenizer
  src/text/batches.cpp                 tokenizer
  src/text/tokenizer.cpp               tokenizer
  src/text/tokenizer_settings.cpp      tokenizer
  src/text/foreign_file.cpp            tokenizer
  src/text/gguf_tokenizer.cpp          tokenizer_json
  src/text/stream_decoder.cpp          tokenizer
  src/text/utf8.cpp                    tokenizer
  src/text/utf8_stream.cpp             tokenizer
  src/text/sentencepiece_tokenizer.cpp sentencepiece
  src/text/sentencepiece_check.cpp     sentencepiece
  src/text/sentencepiece_cuts.cpp      sentencepiece
  src/text/chars_map.cpp               sentencepiece
  src/text/train_tokenizer.cpp         sentencepiece
  src/text/json_tokenizer.cpp          tokenizer_json
  src/text/added_vocabulary.cpp        tokenizer_json
  src/text/token_trie.cpp              tokenizer_json
  src/text/normalizer.cpp              tokenizer_json
  src/text/unicode_normalizer.cpp      tokenizer_json
  src/text/unicode.cpp                 tokenizer_json
  src/text/unicode_class.cpp           tokenizer_json
  src/text/bert_normalizer.cpp         tokenizer_json
  src/text/precompiled.cpp             tokenizer_json
  src/text/grapheme.cpp                tokenizer_json
  src/text/pre_tokenizer.cpp           tokenizer_json
  src/text/split_behavior.cpp          tokenizer_json
  src/text/pattern.cpp                 tokenizer_json
  src/text/regex.cpp                   tokenizer_json
  src/text/metaspace.cpp               tokenizer_json
  src/text/byte_characters.cpp         tokenizer_json
  src/text/token_model.cpp             tokenizer_json
  src/text/vocabulary.cpp              tokenizer_json
  src/text/bpe.cpp                     tokenizer_json
  src/text/unigram.cpp                 tokenizer_json
  src/text/byte_trie.cpp               tokenizer_json
  src/text/word_piece.cpp              tokenizer_json
  src/text/word_level.cpp              tokenizer_json
  src/text/post_processor.cpp          tokenizer_json
  src/text/token_decoder.cpp           tokenizer_json
  src/text/decode_stage.cpp            tokenizer_json
  src/text/words.cpp -
  src/text/bm25.cpp                    -
  src/text/token_bytes.cpp -
  src/text/generate_options.cpp        -)

# HTTP/1.1.
set(http_sources
  src/http/head_text.cpp         -
  src/http/header_scan.cpp       parser
  src/http/request_parser.cpp    parser
  src/http/channel.cpp           server
  src/http/body_file.cpp         server
  src/http/descriptors.cpp       server
  src/http/shared.cpp            server
  src/http/connection.cpp        server
  src/http/connection_output.cpp server
  src/http/connection_time.cpp   server
  src/http/listener.cpp          server
  src/http/server.cpp            server)

# Tensor functions. Those that prefetch stand alone: scripts/check_prefetches.sh looks at each.
set(ops_sources
  src/ops/lookup/lookup.cpp           lookup*
  src/ops/lookup/screened_lookup.cpp  lookup*
  src/ops/lookup/lookup_backward.cpp  -*
  src/ops/gather/gather.cpp           -*
  src/ops/gather/peer.cpp             lookup*
  src/ops/update/group.cpp            -*
  src/ops/update/update.cpp           -*
  src/ops/update/row_updates.cpp      small*
  src/ops/update/missed_steps.cpp     small*
  src/ops/update/lagging_rows.cpp     -*
  src/ops/torch/reference.cpp         reference
  src/ops/torch/reference_updates.cpp reference
  src/ops/torch/check.cpp             small*
  src/ops/torch/check_updates.cpp     small*
  src/ops/lookup/slots.cpp            small*
  src/ops/gather/quantize.cpp         small*
  src/ops/lookup/packed_keys.cpp      small*
  src/ops/lookup/packed_lookup.cpp    -*
  src/ops/gather/columns.cpp        small*
  src/ops/gather/snapshot_rows.cpp    small*
  src/ops/gather/single_rows.cpp      small*
  src/ops/torch/dispatch.cpp          small*
  src/ops/torch/meta.cpp              small*
  src/ops/torch/autograd.cpp          registration
  src/ops/torch/register.cpp          registration
  src/ops/stages.cpp                  lookup*
  src/ops/linear/weights.cpp          -*
  src/ops/linear/product.cpp          lookup*
  src/ops/elementwise.cpp             lookup*
  src/ops/rms_norm.cpp                lookup*
  src/ops/paged_attention.cpp         -*)

# Modules.
set(nn_sources
  src/nn/table.cpp          llama
  src/nn/linear.cpp         llama
  src/nn/float32_product.cpp llama
  src/nn/token_by_token.cpp memory
  src/nn/huge_pages.cpp     folder
  src/nn/finite.cpp         llama
  src/nn/free_memory.cpp    llama
  src/nn/document_runs.cpp  llama
  src/nn/rms_norm.cpp       memory
  src/nn/unset_weights.cpp  llama
  src/nn/pool.cpp           memory
  src/nn/pool_exchange.cpp  -*
  src/nn/pool_tables.cpp    memory
  src/nn/new_rows.cpp       memory
  src/nn/gradient_record.cpp memory
  src/nn/row_source.cpp     memory
  src/nn/held_rows.cpp      memory
  src/nn/sharded_rows.cpp   memory
  src/nn/whole_rows.cpp     folder
  src/nn/pool_files.cpp     folder
  src/nn/product_keys.cpp   memory
  src/nn/lookup_hook.cpp    memory
  src/nn/output_hook.cpp    memory
  src/nn/asked.cpp          memory
  src/nn/ngrams.cpp         memory
  src/nn/memory_layer.cpp   memory
  src/nn/feed_forward.cpp   llama
  src/nn/decoder_layer.cpp  llama
  src/nn/llama.cpp          llama
  src/nn/kv_cache.cpp       llama
  src/nn/step.cpp           llama
  src/nn/flops.cpp          llama
  src/nn/packed_weights.cpp -
  src/nn/model_folder.cpp   folder)

# Training.
set(train_sources
  src/train/optimizer.cpp          step
  src/train/row_optimizer.cpp      step
  src/train/processes.cpp          -*
  src/train/gradient_sum.cpp       step
  src/train/pairwise_gradients.cpp step
  src/train/replica_gradients.cpp  step
  src/train/checkpoint.cpp         checkpoint
  src/train/row_state_files.cpp          checkpoint
  src/train/run_state.cpp          -*
  src/train/tensor_file.cpp        checkpoint
  src/train/verify.cpp             checkpoint
  src/train/trainer.cpp            trainer
  src/train/metrics.cpp            checkpoint
  src/train/event_file.cpp         -*
  src/train/report.cpp             trainer
  src/train/evaluate.cpp           trainer
  src/train/evaluate_choices.cpp   trainer
  src/train/evaluate_windows.cpp   trainer
  src/train/fact_row.cpp           trainer
  src/train/fact_batch.cpp         trainer
  src/train/answer_scores.cpp      trainer
  src/train/estimate.cpp           trainer
  src/train/training_step.cpp      step
  src/train/resume.cpp             checkpoint
  src/train/training_data.cpp      -*
  src/train/report_page.cpp        trainer
  src/train/trainer_prepare.cpp    trainer
  src/train/trainer_output.cpp     trainer)

# Edits.
set(edit_sources
  src/edit/facts.cpp       learn
  src/edit/select.cpp      learn
  src/edit/learn.cpp       learn
  src/edit/teach.cpp        teach
  src/edit/teacher.cpp      teach
  src/edit/streams.cpp        teach
  src/edit/kept_states.cpp  teach
  src/edit/output_penalty.cpp teach
  src/edit/chosen_rows.cpp learn
  src/edit/phrasings.cpp   learn
  src/edit/student.cpp     learn
  src/edit/slot_reads.cpp  learn
  src/edit/weights.cpp     learn
  src/edit/dense_add_on.cpp learn
  src/edit/retrieval.cpp   learn
  src/edit/retrofit.cpp     teach
  src/edit/prime.cpp        teach
  src/edit/whole_memory.cpp teach
  src/edit/prose.cpp        teach
  src/edit/subjects.cpp    learn
  src/edit/question_text.cpp slots
  src/edit/confidence.cpp  slots
  src/edit/grow.cpp        slots
  src/edit/grow_folder.cpp slots
  src/edit/revive.cpp      learn
  src/edit/slots.cpp       slots
  src/edit/slot_rows.cpp   slots
  src/edit/grown.cpp       slots
  src/edit/explain.cpp     slots
  src/edit/explain_svg.cpp slots
  src/edit/explanation_json.cpp slots)

# OpenAI's interface and ours.
set(api_sources
  src/api/errors.cpp             parts
  src/api/fields.cpp             parts
  src/api/hosts.cpp              parts
  src/api/keys.cpp               parts
  src/api/log.cpp                parts
  src/api/metrics.cpp            parts
  src/api/token_text.cpp         parts
  src/api/respond.cpp            parts
  src/api/ticker.cpp             parts
  src/api/workers.cpp            parts
  src/api/common_rules.cpp       requests
  src/api/common_fields.cpp      requests
  src/api/completion_request.cpp requests
  src/api/chat_request.cpp       requests
  src/api/answer.cpp             requests
  src/api/completion_answer.cpp  requests
  src/api/chat_answer.cpp        requests
  src/api/receipt.cpp            requests
  src/api/run.cpp                runs
  src/api/whole_run.cpp          runs
  src/api/streamed_run.cpp       runs
  src/api/completion_routes.cpp  runs
  src/api/router.cpp             routes
  src/api/service.cpp            routes
  src/api/status_routes.cpp      routes
  src/api/token_routes.cpp       routes
  src/api/memory_routes.cpp      routes
  src/api/memory_json.cpp        routes
  src/api/teach_routes.cpp       routes
  src/api/question_routes.cpp    routes
  src/api/openapi.cpp            routes
  src/api/json_schema.cpp          -
  src/api/grammar/token_tree.cpp   -
  src/api/grammar/program.cpp      -
  src/api/grammar/states.cpp       -
  src/api/grammar/walk.cpp         -
  src/api/grammar/filter.cpp       -
  src/api/grammar/characters.cpp   -
  src/api/grammar/numbers.cpp      -
  src/api/grammar/regex_tree.cpp   -
  src/api/grammar/pattern.cpp      -
  src/api/grammar/schema.cpp       -
  src/api/grammar/schema_place.cpp -
  src/api/grammar/schema_types.cpp -
  src/api/grammar/schema_fixed.cpp -
  src/api/grammar/schema_apart.cpp -)

# The engine behind the HTTP interface.
set(serve_sources
  src/serve/pool_views.cpp    engine
  src/serve/piece_size.cpp    engine
  src/serve/scheduler.cpp     engine
  src/serve/scheduler_thread.cpp engine
  src/serve/ask.cpp           engine
  src/serve/canaries.cpp      memory
  src/serve/canary_file.cpp   memory
  src/serve/low_priority.cpp  memory
  src/serve/lesson.cpp        memory
  src/serve/teacher.cpp       memory
  src/serve/model_memory.cpp  memory
  src/serve/weights_digest.cpp engine
  src/serve/model_engine.cpp  memory)

# Generation.
set(generate_sources
  src/generate/sampler.cpp     generate
  src/generate/logprobs.cpp    generate
  src/generate/text_cutter.cpp -*
  src/generate/prefix_cache.cpp generate
  src/generate/step_reads.cpp  generate
  src/generate/sequence.cpp    generate
  src/generate/decoder_state.cpp generate
  src/generate/decoder.cpp     generate
  src/generate/generator.cpp   generate)

# What the Python package calls beside the tensor functions.
set(python_sources
  src/python/files.cpp        -*
  src/python/pool.cpp         -*
  src/python/store.cpp        -*
  src/python/edits.cpp        -*
  src/python/generator.cpp    -*
  src/python/lagging_rows.cpp -*)

# Measurements of the command.
set(bench_sources
  src/bench/machine.cpp      -*
  src/bench/read_kernels.cpp -*
  src/bench/limits.cpp       operators
  src/bench/draw.cpp         operators
  src/bench/subjects.cpp        operators
  src/bench/products.cpp     operators
  src/bench/lookup.cpp       operators
  src/bench/gather.cpp       operators
  src/bench/update.cpp       models
  src/bench/layer.cpp        models
  src/bench/decoder.cpp      models
  src/bench/trainee.cpp      models
  src/bench/model.cpp        models
  src/bench/least_exchange.cpp      -*
  src/bench/parallel.cpp     models
  src/bench/plan.cpp         models
  src/bench/plan_rates.cpp   models)

# The command.
set(cli_sources
  src/cli/main.cpp           -*
  src/cli/train.cpp          training
  src/cli/generate.cpp       models
  src/cli/generate_options.cpp models
  src/cli/chat.cpp           models
  src/cli/eval.cpp           models
  src/cli/inspect.cpp        models
  src/cli/quantize.cpp       models
  src/cli/import.cpp         models
  src/cli/export.cpp         models
  src/cli/patch.cpp          models
  src/cli/patch_show.cpp     models
  src/cli/patches.cpp        models
  src/cli/learn.cpp          training
  src/cli/learn_measures.cpp training
  src/cli/bench_learn.cpp    training
  src/cli/bench_methods.cpp  training
  src/cli/bench_outcome.cpp  training
  src/cli/grow.cpp           models
  src/cli/retrofit.cpp       models
  src/cli/explain.cpp        models
  src/cli/serve.cpp          serving
  src/cli/section.cpp        serving
  src/cli/tokenize.cpp       models
  src/cli/new_output.cpp     models
  src/cli/score_text.cpp     models
  src/cli/bench.cpp          training*
  src/cli/bench_cases.cpp    training*
  src/cli/bench_model.cpp    training*
  src/cli/bench_parallel.cpp training*
  src/cli/plan.cpp           training*
  src/cli/help.cpp           terminal*
  src/cli/interrupts.cpp     terminal*
  src/cli/options.cpp        terminal*
  src/cli/output.cpp         terminal*
  src/cli/terminal.cpp       terminal*)
